"""Negatives mined anew: what is found, when it is used, and what a resumed run trains on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_retrofit.data.formats import read_records
from lit_retrofit.errors import UserError
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.training.callbacks import Remine

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
