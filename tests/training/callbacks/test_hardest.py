"""The hardest negatives of a step: found by hand from the step's embeddings, as texts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import WandbLogger

from lit_retrofit.errors import UserError
from lit_retrofit.training.callbacks import HardestNegatives
from lit_retrofit.training.callbacks.hardest import hardest_negatives

HARDEST = ("--config", "configs/callbacks/hardest_negatives.yaml")

NO_GROUPS = {"query_groups": None, "document_groups": None}


def test_against_dense_similarities() -> None:
    torch.manual_seed(0)
    queries, documents = (torch.nn.functional.normalize(torch.randn(n, 4), dim=1) for n in (7, 12))
    known = torch.tensor([[0, -1], [1, 8], [2, -1], [3, 0], [4, -1], [5, -1], [6, -1]])
    batch = SimpleNamespace(positives=torch.arange(7), known_positives=known, **NO_GROUPS)
    rows, columns, positives, negatives = hardest_negatives(queries, documents, batch, 3)  # type: ignore[arg-type]
    similarity = queries @ documents.T
    found = []
    for query in range(7):
        others = [d for d in range(12) if d not in known[query].tolist()]
        nearest = max(others, key=lambda d, q=query: similarity[q, d])
        found.append((float(similarity[query, nearest] - similarity[query, query]), query, nearest))
    expected = sorted(found, reverse=True)[:3]
    assert rows.tolist() == [query for _, query, _ in expected]
    assert columns.tolist() == [nearest for _, _, nearest in expected]
    assert (negatives - positives).tolist() == pytest.approx([gap for gap, _, _ in expected], abs=1e-6)


def test_documents_of_another_group_are_no_negatives() -> None:
    torch.manual_seed(0)
    queries, documents = (torch.nn.functional.normalize(torch.randn(n, 4), dim=1) for n in (4, 10))
    groups = torch.tensor([7, 9, 7, 3]), torch.tensor([7, 9, 7, 3, 7, 9, 9, 7, 5, 9])
    batch = SimpleNamespace(
        positives=torch.arange(4), known_positives=torch.arange(4)[:, None], query_groups=groups[0],
        document_groups=groups[1],
    )  # fmt: skip
    rows, columns, _, negatives = hardest_negatives(queries, documents, batch, 4)  # type: ignore[arg-type]
    similarity = (queries @ documents.T).masked_fill(groups[0][:, None] != groups[1], -2.0)
    similarity[torch.arange(4), torch.arange(4)] = -2.0
    found = dict(zip(rows.tolist(), zip(columns.tolist(), negatives.tolist(), strict=True), strict=True))
    assert found.keys() == {0, 1, 2}  # of the last one's group there is only its positive
    for query, (column, score) in found.items():
        assert column == int(similarity[query].argmax())
        assert score == pytest.approx(float(similarity[query].max()), abs=1e-6)


def test_a_source_without_in_batch_negatives_shows_its_own(run) -> None:
    source = f'[{{"path": "{run.folder / "train.jsonl"}", "in_batch_negatives": false}}]'
    options = (*HARDEST, "--trainer.callbacks.every_n_steps=1", "--trainer.callbacks.queries=10")
    alone = ("--data.options.train", source, "--trainer.max_steps", "1", "--data.sampling.negatives", "2")
    assert run(*options, *alone) == 0
    rows = [json.loads(line) for line in (run.folder / "train.jsonl").read_text().splitlines()]
    own = {_joined("query: " + row["query"]): {_joined("passage: " + row[f"negative_{i}"]) for i in (1, 2)}
           for row in rows}  # fmt: skip
    found = lines(run)
    assert len(found) == 10
    assert all(_joined(line["negative"]) in own[_joined(line["query"])] for line in found)


def test_lines_that_a_kill_has_cut_are_left_out(tmp_path) -> None:
    whole = [json.dumps({"step": step, "query": "\u2028 \u00fc"}, ensure_ascii=False) for step in range(4)]
    cut = ['{"step": 1, "que', "[1]", '{"step": null}', "7"]
    content = "\n".join([whole[0], *cut, whole[1], whole[3], ""])
    half_a_character = '{"step": 1, "query": "\u00fc'.encode()[:-1]
    (tmp_path / "hardest.jsonl").write_bytes(content.encode() + half_a_character)
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True, global_step=3)
    HardestNegatives().on_train_start(trainer, None)  # type: ignore[arg-type]
    assert (tmp_path / "hardest.jsonl").read_text(encoding="utf-8") == f"{whole[0]}\n{whole[1]}\n"


def test_a_query_without_negatives_is_not_shown() -> None:
    batch = SimpleNamespace(
        positives=torch.tensor([0]), known_positives=torch.tensor([[0]]), **NO_GROUPS
    )  # fmt: skip
    rows, *_ = hardest_negatives(torch.eye(1, 3), torch.eye(1, 3), batch, 3)  # type: ignore[arg-type]
    assert len(rows) == 0


def lines(run, name: str = "run") -> list[dict]:
    text = (run.folder / name / "hardest.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_writes_texts_to_read(run, injected) -> None:
    options = (*HARDEST, "--trainer.callbacks.every_n_steps=4", "--trainer.callbacks.queries=3")
    assert run(*options, name="whole") == 0
    found = lines(run, "whole")
    assert [line["step"] for line in found] == [0] * 3 + [4] * 3 + [8] * 3
    rows = [json.loads(line) for line in (run.folder / "train.jsonl").read_text().splitlines()]
    spelled = {_joined("query: " + row["query"]): row for row in rows}
    for line in found:
        row = spelled[_joined(line["query"])]
        assert _joined(line["positive"]) == _joined("passage: " + row["positive"])
        assert line["negative"].startswith("passage : ") and line["negative"] != line["positive"]
        assert line["language"] == row["language"]
        assert line["record_id"].endswith(f":{1 + rows.index(row)}")
        assert -1 <= line["negative_similarity"] <= 1
    gaps = [line["negative_similarity"] - line["positive_similarity"] for line in found[:3]]
    assert gaps == sorted(gaps, reverse=True)

    assert run(*options, *injected("SignalAt", step=6, name="SIGTERM")) == 143
    # Lines of steps that the checkpoint does not know of are written again, not twice.
    with (run.folder / "run" / "hardest.jsonl").open("a") as file:
        file.write(json.dumps({**found[-1], "step": 7}) + "\n")
    assert run(*options, "--ckpt_path", run.checkpoint()) == 0
    assert lines(run) == found


def _joined(text: str) -> str:
    """The tiny tokenizer decodes its pieces one by one."""
    return text.replace(" ##", "").replace(" ", "")


class Tables(WandbLogger):
    def __init__(self) -> None:
        self.tables: list[tuple] = []

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None) -> None:
        self.tables.append((key, columns, data))


def test_a_table_for_weights_and_biases(tmp_path) -> None:
    batch = SimpleNamespace(
        positives=torch.tensor([0, 1]), known_positives=torch.tensor([[0], [1]]), record_ids=("a", "b"),
        query_rows=torch.tensor([0, 1]), document_rows=torch.tensor([2, 3]),
        micro_batches=[SimpleNamespace(rows=torch.arange(4), input_ids=torch.arange(4)[:, None],
                                       attention_mask=torch.ones(4, 1), role=None)],
        **NO_GROUPS,
    )  # fmt: skip
    backend = SimpleNamespace(decode=lambda ids, skip_special_tokens: f"text {ids[0]}")
    embeddings = SimpleNamespace(queries=torch.eye(2), documents=torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    tokenizer = SimpleNamespace(of=lambda role: SimpleNamespace(backend=backend))
    module = SimpleNamespace(step_embeddings=embeddings, tokenizer=tokenizer)
    logger = Tables()
    trainer = SimpleNamespace(
        accumulate_grad_batches=1, global_step=1, is_global_zero=True, default_root_dir=str(tmp_path),
        loggers=[logger], datamodule=SimpleNamespace(train_records=[]),
    )  # fmt: skip
    HardestNegatives().on_train_batch_end(trainer, module, None, batch, 0)  # type: ignore[arg-type]
    ((key, columns, data),) = logger.tables
    assert key == "train/hardest_negatives"
    assert columns[:4] == ["step", "query", "positive", "negative"]
    assert data == [
        [0, "text 1", "text 3", "text 2", 1.0, 0.8, None, "b"],
        [0, "text 0", "text 2", "text 3", 0.6, 0.0, None, "a"],
    ]


def test_options_that_cannot_be_meant() -> None:
    for options in ({"every_n_steps": 0}, {"queries": 0}):
        with pytest.raises(UserError, match=next(iter(options))):
            HardestNegatives(**options)
