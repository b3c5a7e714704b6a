"""Query and document encoders apart: gradients, the batches they get, whole runs and their export."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_retrofit.cli import main
from lit_retrofit.data.batching import make_micro_batches
from lit_retrofit.data.collating import RetrievalCollator
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.sampling import Draw
from lit_retrofit.errors import UserError
from lit_retrofit.model.dual import DualEncoder
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.graph_budget import GraphBudget
from lit_retrofit.training.lit_module import Retriever

QUERIES = ["word", "the page of the text", "a", "x y z 12", "what is 7?"]
DOCUMENTS = ["page", "text number one, which is long", "word", "another page", "seven is a number", "w"]
METHODS = {  # of queries, of documents
    "both full": ({}, {}),
    "lora and full": ({"lora": LoraOptions(r=4)}, {}),
    "top layer, frozen layer": ({"lora": LoraOptions(r=4, top_layers=1)}, {"freeze_layers": 1}),
    "documents frozen": ({}, {"freeze": True}),
    "queries frozen": ({"freeze": True}, {"lora": LoraOptions(r=4)}),
}


@pytest.fixture
def build(bert_folder, xlmr_folder):
    def make(query: dict, document: dict, dropout: float = 0.0) -> DualEncoder:
        torch.manual_seed(1)
        parts = [
            build_encoder(EncoderOptions(str(folder), dropout=dropout, **options))
            for folder, options in ((bert_folder, query), (xlmr_folder, document))
        ]
        encoder = DualEncoder(*parts).double()
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
        return encoder

    return make


def micro_batches(encoder: DualEncoder):
    found = ()
    for role, texts, first in (("query", QUERIES, 0), ("document", DOCUMENTS, len(QUERIES))):
        tokens = encoder.tokenizer(texts, role)
        found += make_micro_batches(tokens, encoder.of(role).tokenizer.pad_id, 37, role, first)
    return found


def engine(
    encoder: DualEncoder, gigabytes: float, calls: Counter | None = None, cheap=("query", "document")
) -> CachedEmbeddings:
    def encode(batch):
        if calls is not None:
            calls[batch.role, torch.is_grad_enabled()] += 1
        return encoder.of(batch.role)(batch.input_ids, batch.attention_mask)

    parts = {"query": encoder.query, "document": encoder.document}
    return CachedEmbeddings(
        encode, micro_batches(encoder), len(QUERIES) + len(DOCUMENTS), GraphBudget(gigabytes),
        encoder.parameters(), {role: part.frozen for role, part in parts.items() if part.frozen},
        {role: parts[role].cheap for role in cheap},
        {role for role, part in parts.items() if not part.learns},
    )  # fmt: skip


def dense_loss(queries: Tensor, documents: Tensor) -> Tensor:
    return nn.functional.cross_entropy(queries @ documents.T * 20, torch.arange(len(QUERIES)))


def plain(encoder: DualEncoder, role, texts) -> Tensor:
    """One forward over all texts of a role, padded to the longest."""
    rows = encoder.tokenizer(texts, role)
    width = max(map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return encoder.of(role)(ids, mask)


def gradients(encoder: DualEncoder) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    return found


@pytest.mark.parametrize("kept", ["none", "half", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_plain_full_batch(build, method: str, kept: str) -> None:
    encoder = build(*METHODS[method])
    loss = dense_loss(plain(encoder, "query", QUERIES), plain(encoder, "document", DOCUMENTS))
    loss.backward()
    expected = gradients(encoder)
    learning = {role for role in ("query", "document") if encoder.of(role).learns}
    assert {name.split(".")[0] for name in expected} == learning

    room = {"none": 0.0, "half": engine(encoder, 1e3).kept_bytes / 2 / 1e9, "all": 1e3}[kept]
    calls: Counter = Counter()
    cached = engine(encoder, room, calls)
    recomputed = cached.recomputed_tokens
    found = dense_loss(cached.leaf[: len(QUERIES)], cached.leaf[len(QUERIES) :])
    assert abs(found.detach() - loss.detach()) < 1e-12
    found.backward()
    cached.backward()
    assert (recomputed > 0) == (kept != "all")
    made = gradients(encoder)
    assert made.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (made[name] - gradient).abs().max() < 1e-10 * largest, name
    for role in ("query", "document"):
        if not encoder.of(role).learns:  # once, without a graph
            assert calls[role, True] == 0
            assert calls[role, False] == sum(batch.role == role for batch in micro_batches(encoder))


def test_the_cheap_layers_of_each_are_not_kept(build) -> None:
    encoder = build({}, {})
    sizes = [
        engine(encoder, 1e3, cheap=roles).kept_bytes for roles in ((), ("query",), ("query", "document"))
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_texts_of_a_frozen_encoder_take_no_room(build) -> None:
    encoder = build({}, {"freeze": True})
    graphs = engine(encoder, 1e3).kept_bytes
    assert graphs > 0
    assert engine(encoder, 1.2 * graphs / 1e9).recomputed_tokens == 0


def test_dropout_is_replayed_in_the_right_encoder(build) -> None:
    encoder = build({"lora": LoraOptions(r=4)}, {}, dropout=0.2)
    found = []
    for room in (0.0, 1e3):
        torch.manual_seed(5)
        cached = engine(encoder, room)
        dense_loss(cached.leaf[: len(QUERIES)], cached.leaf[len(QUERIES) :]).backward()
        cached.backward()
        found.append(gradients(encoder))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def draw(query: str, positive: str) -> Draw:
    document = Document(positive, positive)
    return Draw(Record(id=query, query=query, positives=(document,)), document, ())


def test_a_text_is_embedded_once_by_each_encoder(build) -> None:
    """A query may equal a document here: it is a text of each, while equal texts of a role are one."""
    encoder = build({}, {})
    draws = [draw("word", "word"), draw("word", "page"), draw("a", "page")]
    batch = RetrievalCollator(encoder.tokenizer, 40)(draws)
    assert batch.texts == 4
    assert batch.query_rows.tolist() == [0, 0, 1]
    assert [batch.document_rows[column].item() for column in batch.positives] == [2, 3, 3]
    rows = {role: [] for role in ("query", "document")}
    for part in batch.micro_batches:
        rows[part.role] += part.rows.tolist()
        for ids, mask, row in zip(part.input_ids, part.attention_mask, part.rows.tolist(), strict=True):
            text = {0: "word", 1: "a", 2: "word", 3: "page"}[row]
            assert ids[mask.bool()].tolist() == encoder.tokenizer([text], part.role)[0]
            assert set(ids[~mask.bool()].tolist()) <= {encoder.of(part.role).tokenizer.pad_id}
    assert {role: sorted(found) for role, found in rows.items()} == {"query": [0, 1], "document": [2, 3]}
    moved = batch.to("cpu")
    assert [part.role for part in moved.micro_batches] == [part.role for part in batch.micro_batches]


def test_nothing_to_train_is_refused(bert_folder, xlmr_folder) -> None:
    frozen = EncoderOptions(str(bert_folder), freeze=True)
    for options in ({}, {"document_encoder": EncoderOptions(str(xlmr_folder), freeze=True)}):
        with pytest.raises(UserError, match=r"model\.encoder\.freeze"):
            Retriever(frozen, **options)


@pytest.fixture
def fit(bert_folder, xlmr_folder, tmp_path):
    rows = [{"query": f"what of {i}{i}", "positive": f"page {i}{i} tells {i}"} for i in range(20)]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*extra: str, name: str = "run", documents: Path | None = xlmr_folder) -> int:
        own = [] if documents is None else ["--model.document_encoder.model", str(documents)]
        return main([
            "fit", "--output", str(tmp_path / name), "--model.encoder.model", str(bert_folder), *own,
            "--model.encoder.lora.r", "4", "--model.optimizer.learning_rate", "0.01",
            "--data.options.train", f"[{data}]", "--data.options.validation_share", "0.3",
            "--data.options.token_budget", "100", "--data.sampling.batch_size", "4",
            "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--wandb", "false",
            "--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true", *extra,
        ])  # fmt: skip

    return run


def test_a_run_is_resumed_embedded_and_exported(fit, xlmr_folder, tmp_path, capsys) -> None:
    from sentence_transformers import SentenceTransformer

    freeze = ("--model.document_encoder.freeze", "true")
    mining = ("--trainer.callbacks+=lit_retrofit.training.callbacks.Remine",)
    assert fit(*freeze, *mining) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    card = json.loads((run / "training.json").read_text())
    assert card["document_encoder"]["model"] == str(xlmr_folder)
    last = run / "checkpoints" / "last.ckpt"
    assert not any("document" in name for name in torch.load(last, weights_only=True)["state_dict"])
    loaded = load_encoder(str(run))
    base = load_encoder(str(xlmr_folder))
    texts = ["page 33", "what of 5"]
    assert torch.equal(embed_texts(loaded, texts, "document"), embed_texts(base, texts, "document"))

    assert fit(*freeze, *mining, "--trainer.max_epochs", "3", "--ckpt_path", str(last)) == 0
    loaded = load_encoder(str(run))
    assert fit("--ckpt_path", str(last), name="other", documents=None) == 2
    assert "trained with model.document_encoder" in capsys.readouterr().err

    assert main(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for role, embed in (("query", model.encode_query), ("document", model.encode_document)):
        found = embed(texts, convert_to_tensor=True, show_progress_bar=False)
        assert torch.cosine_similarity(found, embed_texts(loaded, texts, role)).min() > 0.9999
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"`{xlmr_folder.name}`, kept as it is, embeds documents" in readme
    assert main(["evaluate", str(tmp_path / "out"), "--data", "quickstart:test"]) == 2
    assert "Router" in capsys.readouterr().err
