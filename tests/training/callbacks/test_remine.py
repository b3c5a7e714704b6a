"""Negatives mined anew: what is found, when it is used, and what a resumed run trains on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Document, Record
from lit_retrofit.errors import UserError
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.training.callbacks import Remine
from lit_retrofit.training.callbacks.remine import with_teacher
from lit_retrofit.training.objective.distillation import Distillation

REMINE = (
    "--config", "configs/callbacks/remine.yaml", "--trainer.callbacks.rules.rank_window=3",
    "--trainer.callbacks.rules.per_query=2", "--trainer.callbacks.rules.sampling=top",
    "--trainer.callbacks.rules.relative_margin=1.0",
)  # fmt: skip


def mined(folder: Path, epoch: int) -> dict[str, list[str]]:
    records, _ = read_records(folder / "remined" / f"epoch-{epoch}.jsonl")
    return {record.id: [negative.text for negative in record.negatives] for record in records}


def test_the_weights_at_an_epochs_end_mine_for_the_next(run) -> None:
    """Against a dense search by hand with the checkpoint of the same moment."""
    constant = ("--model.optimizer.schedule", "constant", "--model.optimizer.warmup", "0")
    assert run(*REMINE, *constant, "--trainer.max_epochs", "2") == 0
    # The weights after one epoch.
    assert run(*REMINE, *constant, "--trainer.max_epochs", "1", name="first") == 0
    folder = run.folder / "run" / "remined"
    assert {path.name for path in folder.iterdir()} == {"epoch-1.jsonl", "epoch-1.summary.json"}
    assert not (run.folder / "first" / "remined").exists()  # nothing comes after its only epoch

    records, _ = read_records(run.folder / "train.jsonl")
    encoder = load_encoder(run.checkpoint("first"))
    documents = sorted({d.text for record in records for d in record.positives + record.negatives})
    vectors = embed_texts(encoder, documents, "document")
    queries = embed_texts(encoder, [record.query for record in records], "query")
    found = mined(run.folder / "run", 1)
    assert list(found) == [record.id for record in records]
    for record, query in zip(records, queries, strict=True):
        scores = dict(zip(documents, (vectors @ query).tolist(), strict=True))
        positive = scores[record.positives[0].text]
        below = [text for text, score in scores.items() if score < positive - 1e-6]
        expected = sorted(below, key=scores.__getitem__, reverse=True)[:2]
        assert [scores[t] for t in found[record.id]] == pytest.approx([scores[t] for t in expected], abs=1e-5)
    summary = json.loads((folder / "epoch-1.summary.json").read_text())
    assert (summary["records"], summary["epoch"], summary["step"]) == (30, 1, 3)
    before = {record.id: [negative.text for negative in record.negatives] for record in records}
    assert summary["changed"] == sum(before[name] != texts for name, texts in found.items()) > 0
    assert summary["without"] == sum(not texts for texts in found.values())
    assert run.column("remined/changed_share") == pytest.approx([summary["changed"] / 30])


def test_the_next_epoch_draws_from_them(run) -> None:
    """The first epoch is that of a run without mining, the second is not."""
    assert run(*REMINE) == 0
    assert run(name="plain") == 0
    losses, plain = run.column("train/loss"), run.column("train/loss", "plain")
    assert losses[:3] == plain[:3]
    assert losses[3] != plain[3]


@pytest.mark.parametrize("step", [3, 5])
def test_a_resumed_run_trains_on_the_negatives_of_its_epoch(run, injected, step: int) -> None:
    """Stopped at the last step of an epoch, before the mining for the next, and within the second epoch."""
    assert run(*REMINE, name="whole") == 0
    stop = injected("SignalAt", step=step, name="SIGTERM")
    assert run(*REMINE, *stop) == 143
    assert (run.folder / "run" / "remined" / "epoch-1.jsonl").exists() == (step == 5)
    assert run(*REMINE, "--ckpt_path", run.checkpoint()) == 0
    assert run.column("train/loss") == run.column("train/loss", "whole")
    assert run.same_weights("whole", "run")
    for epoch in (1, 2):
        assert mined(run.folder / "run", epoch) == mined(run.folder / "whole", epoch)


def test_what_a_resumed_run_cannot_train_on(run, injected, capsys) -> None:
    assert run(*REMINE, *injected("SignalAt", step=5, name="SIGTERM")) == 143
    file = run.folder / "run" / "remined" / "epoch-1.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    assert run(*REMINE, "--ckpt_path", run.checkpoint()) == 2
    assert "other records" in capsys.readouterr().err
    file.unlink()
    assert run(*REMINE, "--ckpt_path", run.checkpoint()) == 2
    assert "which is gone" in capsys.readouterr().err


def test_every_other_epoch(run) -> None:
    assert run(*REMINE, "--trainer.callbacks.every_n_epochs=2") == 0
    names = {path.name for path in (run.folder / "run" / "remined").iterdir()}
    assert names == {"epoch-2.jsonl", "epoch-2.summary.json"}
    with pytest.raises(UserError, match="every_n_epochs"):
        Remine(every_n_epochs=0)


BY_STEPS = (*REMINE, "--trainer.callbacks.every_n_steps=2")


@pytest.mark.parametrize("workers", [0, 2])
def test_after_every_other_step(run, workers: int) -> None:
    """Three steps an epoch: the second mining falls between two steps of the second one."""
    assert run(*BY_STEPS, "--data.options.workers", str(workers)) == 0
    assert run(name="plain") == 0
    names = {path.name for path in (run.folder / "run" / "remined").iterdir()}
    assert names == {f"step-{step}.{end}" for step in (2, 4, 6, 8) for end in ("jsonl", "summary.json")}
    losses, plain = run.column("train/loss"), run.column("train/loss", "plain")
    assert (
        losses[:2] == plain[:2] and losses[2] != plain[2]
    )  # drawn from the new ones at once, workers or not
    summary = json.loads((run.folder / "run" / "remined" / "step-4.summary.json").read_text())
    assert (summary["epoch"], summary["step"], summary["records"]) == (1, 4, 30)


@pytest.mark.parametrize("step", [4, 5])
def test_a_run_that_mines_by_steps_goes_on_to_the_bit(run, injected, step: int) -> None:
    """Stopped within an epoch: right after a mining, and a step later."""
    assert run(*BY_STEPS, name="whole") == 0
    assert run(*BY_STEPS, *injected("SignalAt", step=step, name="SIGTERM")) == 143
    assert run(*BY_STEPS, "--ckpt_path", run.checkpoint()) == 0
    assert run.column("train/loss") == run.column("train/loss", "whole")
    assert run.same_weights("whole", "run")
    file = Path("remined") / "step-6.jsonl"
    assert (run.folder / "run" / file).read_text() == (run.folder / "whole" / file).read_text()


def test_a_run_that_goes_on_beyond_its_last_step_mines_after_it(run) -> None:
    """What was the last step, after which nothing is mined, is one like any other."""
    constant = ("--model.optimizer.schedule=constant", "--model.optimizer.warmup=0")
    assert run(*BY_STEPS, *constant, name="whole") == 0
    assert run(*BY_STEPS, *constant, "--trainer.max_steps=6") == 0
    assert not (run.folder / "run" / "remined" / "step-6.jsonl").exists()
    assert run(*BY_STEPS, *constant, "--trainer.max_steps=-1", "--ckpt_path", run.checkpoint()) == 0
    assert run.same_weights("whole", "run")


def test_what_cannot_be_mined_by_steps(run, capsys) -> None:
    assert run(*BY_STEPS, "--data.sampling.neighbours=1") == 2
    assert "every_n_steps of Remine" in capsys.readouterr().err
    with pytest.raises(UserError, match="every_n_steps of Remine is 0"):
        Remine(every_n_steps=0)


def streamed(run) -> str:
    """The training records as a streamed source."""
    rows = [json.loads(line) for line in (run.folder / "train.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), run.folder / "stream.parquet")
    return json.dumps({"path": str(run.folder / "stream.parquet"), "stream": True, "name": "web"})


@pytest.mark.parametrize("config", ["remine", "remine_background"])
def test_without_records_in_memory_there_is_nothing_to_mine_for(run, capsys, config: str) -> None:
    words = ("--config", f"configs/callbacks/{config}.yaml", f"--data.options.train=[{streamed(run)}]")
    assert run(*words) == 2
    assert "has no records to mine for: all sources of data.options.train" in capsys.readouterr().err


def test_what_is_streamed_keeps_its_negatives_and_is_named(run, caplog) -> None:
    train = f"--data.options.train=[{run.folder / 'train.jsonl'}, {streamed(run)}]"
    assert run(*REMINE, train, "--trainer.max_epochs=2") == 0
    assert caplog.text.count("Remine keeps the negatives of what is streamed as they are: web") == 1
    assert len(mined(run.folder / "run", 1)) == 30


def test_terms_that_learn_from_a_teacher_never_see_the_students_scores(run, monkeypatch) -> None:
    """In every epoch: the given score of a positive and of a negative that was given, or none (NaN)."""
    rows = [json.loads(line) for line in (run.folder / "train.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"positive_scores": [100.0 + i], "negative_scores": [50.0 + i, -50.0 - i]}
    (run.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[list[float]] = []

    def forward(self, step, scale):
        seen.extend(step.teacher_scores.tolist())
        return original(self, step, scale)

    original = Distillation.forward
    monkeypatch.setattr(Distillation, "forward", forward)
    everything = (
        "--trainer.callbacks.rules.rank_window=90",
        "--trainer.callbacks.rules.per_query=90",
        "--data.sampling.negatives=90",
        "--model.objective.distillation.weight=1",
        "--trainer.max_epochs=2",
    )
    assert run(*REMINE, *everything) == 0
    for positive, *negatives in seen:
        i = positive - 100
        known = {score for score in negatives if score == score}
        assert known <= {50.0 + i, -50.0 - i}
    found, fresh = seen[30:], [sum(score != score for score in row) for row in seen[30:]]
    assert len(seen) == 60 and min(fresh) > 0  # of the second epoch, every query's candidates
    assert sum(len({score for score in row[1:] if score == score}) for row in found) > 0


def test_a_teachers_scores_stay_with_their_documents() -> None:
    positive, *others = (Document(name, f"text {name}") for name in "pabc")
    given = Record(
        "r", "q", (positive,), tuple(others[:2]), positive_scores=(9.0,), negative_scores=(1.0, 2.0)
    )
    # another id of the same text, and one that is new
    negatives = (Document("other", "text b"), others[2])
    mined = replace(given, negatives=negatives, positive_scores=(0.9,), negative_scores=(0.8, 0.7))
    made = with_teacher(mined, given)
    assert (made.negatives, made.positive_scores) == (negatives, (9.0,))
    assert made.negative_scores[0] == 2.0 and math.isnan(made.negative_scores[1])
    made = with_teacher(mined, replace(given, positive_scores=(), negative_scores=()))
    assert made.positive_scores == made.negative_scores == ()


def test_texts_are_embedded_with_the_prompts_of_training(run, capsys) -> None:
    """Two sources share a query text; one has prompts of its own. Against a search by hand."""
    rows = [json.loads(line) for line in (run.folder / "train.jsonl").read_text().splitlines()]
    rows[20]["query"] = rows[0]["query"]
    for name, part in (("a", rows[:20]), ("b", rows[20:])):
        (run.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    own = {"path": str(run.folder / "b.jsonl"), "query_prompt": "find of: ", "document_prompt": "no "}
    sources = json.dumps([str(run.folder / "a.jsonl"), own])
    constant = ("--model.optimizer.schedule=constant", "--model.optimizer.warmup=0")
    words = (*REMINE, *constant, f"--data.options.train={sources}")
    assert run(*words, "--trainer.max_epochs=2") == 0
    assert run(*words, "--trainer.max_epochs=1", name="first") == 0
    found = list(read_records(run.folder / "run" / "remined" / "epoch-1.jsonl")[0])
    records = [r for name in "ab" for r in read_records(run.folder / f"{name}.jsonl")[0]]
    assert [r.query for r in found] == [r.query for r in records] and len(records) == 30
    documents = sorted({d.text for record in records for d in record.positives + record.negatives})
    for part, prompts in ((range(20), {}), (range(20, 30), {k: v for k, v in own.items() if k != "path"})):
        encoder = load_encoder(run.checkpoint("first"), **prompts)
        vectors = embed_texts(encoder, documents, "document")
        queries = embed_texts(encoder, [records[i].query for i in part], "query")
        for i, query in zip(part, queries, strict=True):
            scores = dict(zip(documents, (vectors @ query).tolist(), strict=True))
            positives = [scores[d.text] for d in found[i].positives]
            assert found[i].positive_scores == pytest.approx(positives, abs=1e-5)
            assert found[i].negative_scores == pytest.approx(
                [scores[d.text] for d in found[i].negatives], abs=1e-5
            )
    # in the background there is one prompt of each role
    background = ("--config", "configs/callbacks/remine_background.yaml", *words[2:])
    assert run(*background, name="background") == 2
    assert "find of: " in capsys.readouterr().err and not (run.folder / "background" / "metrics.csv").exists()
