"""Mining beside the training: what it finds, when it is used, and what an interruption leaves."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from lit_retrofit.data.formats import read_records
from lit_retrofit.errors import UserError
from lit_retrofit.training.callbacks import BackgroundRemine
from lit_retrofit.training.callbacks.background_mining import BackgroundMining

pytestmark = pytest.mark.slow  # each mining starts a process

RULES = (
    "--trainer.callbacks.rules.rank_window=3", "--trainer.callbacks.rules.per_query=2",
    "--trainer.callbacks.rules.sampling=top", "--trainer.callbacks.rules.relative_margin=1.0",
    "--model.optimizer.schedule", "constant", "--model.optimizer.warmup", "0",
)  # fmt: skip
BACKGROUND = ("--config", "configs/callbacks/remine_background.yaml", *RULES)


def mined(folder: Path, epoch: int) -> dict[str, list[str]]:
    records, _ = read_records(folder / "remined" / f"epoch-{epoch}.jsonl")
    return {record.id: [negative.text for negative in record.negatives] for record in records}


def miners(folder: Path) -> list[psutil.Process]:
    """Processes that mine for runs in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "lit_retrofit.mining.child" in words and str(folder) in words[-1]:
            found.append(process)
    return found


def test_the_weights_of_the_last_but_one_epoch_mine(run) -> None:
    """Against the foreground, whose second epoch is mined by the weights that mine for the third one here."""
    assert run(*BACKGROUND) == 0
    foreground = ("--config", "configs/callbacks/remine.yaml", *RULES)
    assert run(*foreground, "--trainer.max_epochs", "2", name="foreground") == 0
    assert run(*RULES[4:], name="plain") == 0
    folder = run.folder / "run" / "remined"
    assert mined(run.folder / "run", 2) == mined(run.folder / "foreground", 1)
    mined_files = {"records.jsonl", "epoch-2.jsonl", "epoch-2.summary.json", "epoch-2.log"}
    waiting = {"epoch-3.ckpt", "epoch-4.ckpt"}  # for a run that goes on
    assert {path.name for path in folder.iterdir()} == mined_files | waiting
    records, _ = read_records(folder / "records.jsonl")
    assert records == read_records(run.folder / "train.jsonl")[0]
    losses, plain = run.column("train/loss"), run.column("train/loss", "plain")
    assert losses[:6] == plain[:6]
    assert losses[6] != plain[6]
    assert len(run.column("remined/changed_share")) == 1
    assert not miners(run.folder)


def test_killed_while_it_mines_and_gone_on(run, injected) -> None:
    """Killed in the second epoch, before the third has its negatives; then given another epoch."""
    assert run(*BACKGROUND, "--trainer.max_epochs", "4", name="whole") == 0
    kill = injected("SignalAt", step=5, name="SIGKILL")
    killed = run.process(*BACKGROUND, *kill, "--save_minutes", "0")
    assert killed.returncode == -9, killed.stderr
    folder = run.folder / "run" / "remined"
    assert (folder / "epoch-2.ckpt").is_file()
    until = time.monotonic() + 20
    while miners(run.folder) and time.monotonic() < until:
        time.sleep(0.1)
    assert not miners(run.folder)
    assert run(*BACKGROUND, "--ckpt_path", run.checkpoint(), "--trainer.max_epochs", "4") == 0
    for epoch in (2, 3):
        assert mined(run.folder / "run", epoch) == mined(run.folder / "whole", epoch)
    assert run.same_weights("whole", "run")
    (folder / "epoch-4.ckpt").unlink()
    assert run(*BACKGROUND, "--ckpt_path", run.checkpoint(), "--trainer.max_epochs", "6") == 2


def test_a_failure_ends_the_run_in_one_line(run, capsys) -> None:
    assert run(*BACKGROUND, "--trainer.callbacks.device=cuda:99") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "mining in the background failed: device cuda:99 cannot be used" in error
    assert str(run.folder / "run" / "remined" / "epoch-2.log") in error
    assert not miners(run.folder)


def test_a_process_that_is_stopped(tmp_path) -> None:
    mining = BackgroundMining({"model": "nowhere/at/all", "data": "x", "output": str(tmp_path / "a.jsonl")},
                              tmp_path / "a.log")  # fmt: skip
    mining.check()
    mining.stop()
    assert not miners(tmp_path)
    mining = BackgroundMining(
        {"model": "nowhere/at/all", "data": "none.jsonl", "output": "a.txt"}, tmp_path / "b.log"
    )
    with pytest.raises(UserError, match="JSON lines"):
        mining.wait()
    mining.stop()
    with pytest.raises(UserError, match="every_n_epochs"):
        BackgroundRemine(every_n_epochs=0)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_of_the_first_rank_ends_all(tmp_path, rank: int) -> None:
    """None waits in the next step for one that has ended."""
    error, asked = UserError("mining in the background failed"), []
    strategy = SimpleNamespace(
        reduce_boolean_decision=lambda failed, all: asked.append(failed) or True,
        broadcast=lambda told: error,
    )
    trainer: Any = SimpleNamespace(accumulate_grad_batches=1, is_last_batch=False, strategy=strategy)
    remine = BackgroundRemine()
    if rank == 0:
        remine._mining = 2, SimpleNamespace(check=Mock(side_effect=error))  # type: ignore[assignment]
    with pytest.raises(UserError, match="mining in the background failed"):
        remine.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    assert asked == [rank == 0]
