"""Dropout after a resume: the weights of the uninterrupted run, with random numbers in the step."""

from __future__ import annotations

import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_retrofit.training.callbacks import StepSeeds

EACH_STEP = ("--save_minutes", "0")


@pytest.mark.parametrize("step", [2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_a_run_goes_on_from_any_step_as_if_nothing_had_been(run, step: int) -> None:
    """Within an epoch, at its last step before the validation, and at the first of the next."""
    every = (
        "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.filename={step}", "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=last",
        f"--trainer.callbacks.dirpath={run.folder / 'whole' / 'checkpoints'}",
    )  # fmt: skip
    assert run(*every, name="whole") == 0
    (checkpoint,) = (run.folder / "whole").rglob(f"step={step}.ckpt")
    torch.rand(7)
    assert run("--ckpt_path", str(checkpoint), name="resumed") == 0
    assert run.column("train/loss", "resumed") == run.column("train/loss", "whole")[step:]
    assert run.same_weights("whole", "resumed")
    seeded = ("--seed_everything", "1", "--data.sampling.seed", "0")
    assert run(*seeded, "--ckpt_path", str(checkpoint), name="reseeded") == 0  # the run's own seed holds
    assert run.same_weights("whole", "reseeded")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "step"), [(0, 5), (2, 8)])
def test_kill_9_loses_nothing_that_was_saved(run, injected, workers: int, step: int) -> None:
    """Killed in the middle of a step; weights of LoRA and dropout, bit for bit."""
    options = (*EACH_STEP, "--data.options.workers", str(workers))
    assert run(*options, name="whole") == 0
    killed = run.process(*options, *injected("SignalAt", step=step, name="SIGKILL"))
    assert killed.returncode == -signal.SIGKILL
    assert run.content()["global_step"] == step - 1
    assert len(run.column("train/loss")) == step - 1  # the log is on the disk, too
    assert run(*options, "--ckpt_path", run.checkpoint()) == 0
    assert run.column("train/loss") == run.column("train/loss", "whole")
    assert run.same_weights("whole", "run")


def draws(seeds: StepSeeds, batch: int, rank: int) -> tuple[float, ...]:
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=batch))
    trainer = SimpleNamespace(fit_loop=loops, global_rank=rank)
    seeds.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_a_step_draws_by_seed_number_and_rank_alone() -> None:
    torch.manual_seed(5)
    seeds, resumed = StepSeeds(), StepSeeds()
    seeds.on_train_start(None, None)  # type: ignore[arg-type]
    first = draws(seeds, 7, 0)
    torch.manual_seed(9)
    resumed.load_state_dict(seeds.state_dict())
    resumed.on_train_start(None, None)  # type: ignore[arg-type]
    assert draws(resumed, 7, 0) == first
    others = [draws(seeds, 8, 0), draws(seeds, 7, 1)]
    for kind in range(3):
        assert len({numbers[kind] for numbers in (first, *others)}) == 3
