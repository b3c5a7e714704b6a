"""Runs that end or stop anywhere, once and again, go on as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest

CONSTANT = ("--model.optimizer.schedule", "constant", "--model.optimizer.warmup", "0")
EPOCHS, STEPS = ("--trainer.max_epochs", "3"), ("--trainer.max_epochs", "-1", "--trainer.max_steps", "9")
WHEN = {  # validations, of nine steps in three epochs
    "after epochs": (),
    "every two steps": ("--trainer.val_check_interval", "2", "--trainer.check_val_every_n_epoch", "null"),
    "after every second epoch": ("--trainer.check_val_every_n_epoch", "2"),
    "every step": ("--trainer.val_check_interval", "1"),
    "never": ("--data.options.validation", "null", "--data.options.validation_share", "0"),
}


CASES = [
    ("after epochs", EPOCHS), ("every two steps", STEPS), ("never", EPOCHS),
    ("after every second epoch", STEPS), ("every step", STEPS), ("every two steps", EPOCHS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "end"),
    [case if n < 2 else pytest.param(*case, marks=pytest.mark.slow) for n, case in enumerate(CASES)],
)
def test_a_run_goes_on_again_and_again(run, injected, when: str, end: tuple[str, ...]) -> None:
    """Stopped within an epoch and at its end, by signals, which come before the validation, and by steps."""

    def events(name: str) -> tuple[str, ...]:
        return injected("EpochsEnded", file=str(run.folder / name))

    words = (*CONSTANT, *WHEN[when], *end)
    assert run(*words, *events("events of one"), name="whole") == 0
    onward: tuple[str, ...] = ()
    for step in (2, 3, 5, 6):
        stop = injected("SignalAt", step=step, name="SIGTERM") if step < 4 else ()
        steps = () if stop else ("--trainer.max_steps", str(step))
        stopped = run(*words, *steps, *events("events"), *stop, *onward)
        assert stopped == (143 if stop else 0)
        assert run.content()["global_step"] == step
        onward = ("--ckpt_path", run.checkpoint())
    assert run(*words, *events("events"), *onward) == 0
    assert run.column("train/loss") == run.column("train/loss", "whole")
    assert run.column("val/nDCG@10") == run.column("val/nDCG@10", "whole")
    assert run.same_weights("whole", "run")
    whole = Path(run.folder / "events of one").read_text().splitlines()
    found = Path(run.folder / "events").read_text().splitlines()
    assert [line for line in found if line != "epoch 1 after 5"] == whole  # there the epoch was cut
    epochs = [run.content(name)["loops"]["fit_loop"]["epoch_progress"] for name in ("whole", "run")]
    assert epochs[0] == epochs[1]


def test_a_run_that_ends_by_steps_can_go_on_by_epochs(run) -> None:
    """From the middle of the second epoch, which is not cut short."""
    assert run(*CONSTANT, name="whole") == 0
    assert run(*CONSTANT, "--trainer.max_steps", "4") == 0
    assert run.content()["global_step"] == 4
    assert run(*CONSTANT, "--ckpt_path", run.checkpoint()) == 0
    assert run.column("train/loss") == run.column("train/loss", "whole")
    assert run.same_weights("whole", "run")


@pytest.mark.parametrize("every", [("2", "1"), ("2", "null"), ("5", "null")])
def test_the_last_state_is_saved_wherever_validation_is(run, every: tuple[str, str]) -> None:
    interval, epochs = every
    words = ("--trainer.val_check_interval", interval, "--trainer.check_val_every_n_epoch", epochs)
    assert run(*words, "--trainer.max_steps", "7") == 0
    assert run.content()["global_step"] == 7


@pytest.mark.parametrize("interval", ["1.0", "3"])
def test_the_last_state_knows_the_best(run, interval: str) -> None:
    """Or a run that goes on would take a worse one for the best."""
    assert run("--trainer.val_check_interval", interval, "--trainer.max_epochs", "1") == 0
    (measured,) = run.column("val/nDCG@10")
    states = [state for state in run.content()["callbacks"].values() if state.get("monitor")]
    assert [float(state["best_model_score"]) for state in states] == pytest.approx([measured])


def test_a_time_limit_alone_needs_a_rate_that_does_not_follow_the_steps(run, capsys) -> None:
    words = ("--trainer.max_epochs", "null", "--trainer.max_time", "00:00:00:03")
    assert run(*words) == 2
    assert "the learning rate follows the run's number of steps" in capsys.readouterr().err
    assert run(*words, *CONSTANT, "--overwrite") == 0
    assert run.content()["global_step"] > 0
    assert run("--trainer.max_epochs", "-1", *CONSTANT, "--overwrite") == 2
    assert "the run has no end" in capsys.readouterr().err
