"""A signal ends a run after its step, saved, and the run that goes on ends as the uninterrupted one."""

from __future__ import annotations

import shlex
import signal
from types import SimpleNamespace

import pytest

from lit_retrofit.cli import main
from lit_retrofit.training.callbacks import Interruption
from lit_retrofit.training.callbacks.whole_steps import ended_a_step


@pytest.mark.parametrize(("name", "step", "status"), [("SIGINT", 4, 130), ("SIGTERM", 3, 143)])
def test_a_signal_saves_and_says_how_to_go_on(run, injected, capsys, name, step, status) -> None:
    run.folder = run.folder / "a folder"  # the command is quoted
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert run(name="whole") == 0
    assert run(*injected("SignalAt", step=step, name=name), name="stopped") == status
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"stopped by {name} after step {step}, which is saved" in said
    assert run.content("stopped")["global_step"] == step
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    # The step itself is in the log, and nothing that only a finished run writes is there.
    assert run.column("train/loss", "stopped") == run.column("train/loss", "whole")[:step]
    assert not (run.folder / "stopped" / "training.json").exists()
    command = shlex.split(said.split("lit-retrofit ")[-1])
    assert command[0] == "fit"
    # The message's own words, with the fault taken out of the configuration.
    assert main([*command, "--trainer.callbacks", "null"]) == 0
    assert run.column("train/loss", "stopped") == run.column("train/loss", "whole")
    assert run.same_weights("whole", "stopped")


@pytest.fixture
def sigint_counts():
    """A process that a script starts in the background ignores Ctrl-C, and so do its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_counts")
@pytest.mark.parametrize(("command", "hook"), [
    ("fit", "on_sanity_check_start"), ("fit", "on_sanity_check_end"), ("validate", "on_validation_start"),
])  # fmt: skip
@pytest.mark.parametrize(
    ("name", "status", "line"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "stopped by SIGTERM")]
)
def test_a_signal_before_the_first_step_ends_at_once(
    run, injected, capsys, command, hook, name, status, line
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    words = run.words("--trainer.num_sanity_val_steps", "2", *injected("SignalIn", hook=hook, name=name))
    assert main([command, *words[1:]]) == status
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"lit-retrofit {command}: {line}"
    assert not (run.folder / "run" / "checkpoints").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_without_a_saved_configuration_no_command_is_made_up(tmp_path) -> None:
    said = Interruption(tmp_path / "my run")._command()
    assert said == f" the same options and --ckpt_path '{tmp_path / 'my run'}/checkpoints/last.ckpt'"


def test_a_signal_during_validation_waits_for_its_result(run, injected, capsys) -> None:
    assert run(*injected("SignalAt", step=3, name="SIGTERM", validating=True)) == 143
    assert run.content()["global_step"] == 3
    assert len(run.column("val/nDCG@10")) == 1
    assert run.content(file="best")["global_step"] == 3
    assert run(name="whole") == 0
    assert run("--ckpt_path", run.checkpoint(), name="resumed") == 0
    assert run.same_weights("whole", "resumed")


def test_a_second_ctrl_c_ends_at_once_and_spoils_nothing(run, injected, capsys) -> None:
    assert run(*injected("SignalAt", step=5, name="SIGINT", times=2)) == 130
    assert "interrupted" in capsys.readouterr().err
    assert run.content()["global_step"] == 3  # of the end of the first epoch


# Five batches in an epoch: steps of two, two and one.
ACCUMULATED = ("--data.sampling.batch_size", "6", "--trainer.accumulate_grad_batches", "2",
               "--trainer.max_epochs", "2", "--data.options.validation", "null",
               "--data.options.validation_share", "0")  # fmt: skip


def test_a_step_ends_with_its_batches_or_with_the_epoch() -> None:
    """Five batches in steps of two."""
    ends = []
    for batch in range(5):
        trainer = SimpleNamespace(accumulate_grad_batches=2, is_last_batch=batch == 4)
        ends.append(ended_a_step(trainer, batch))  # type: ignore[arg-type]
    assert ends == [False, True, False, True, True]


@pytest.mark.parametrize(("batch", "steps"), [(2, 2), (3, 2), (4, 3), (7, 5)])
def test_accumulated_batches_are_ended_before_a_signal_stops(run, injected, batch: int, steps: int) -> None:
    assert run(*ACCUMULATED, name="whole") == 0
    assert len(run.column("train/loss", "whole")) == 6
    stopping = injected("SignalAtBatch", batch=batch, name="SIGTERM")
    assert run(*ACCUMULATED, *stopping, name="stopped") == 143
    assert run.content("stopped")["global_step"] == steps
    assert run(*ACCUMULATED, "--ckpt_path", run.checkpoint("stopped"), name="resumed") == 0
    assert run.column("train/loss", "resumed") == run.column("train/loss", "whole")[steps:]
    assert run.same_weights("whole", "resumed")


def test_the_last_state_is_saved_between_two_steps(run, injected) -> None:
    """The time is up in the first batch of the second step, and the run is killed in the third."""
    due = injected("TimeIsUpAtBatch", batch=2)
    killed = injected("SignalAtBatch", batch=4, name="SIGINT", times=2)
    assert run(*ACCUMULATED, *due, *killed, name="stopped") == 130
    assert run.content("stopped")["global_step"] == 2
    assert run(*ACCUMULATED, name="whole") == 0
    assert run(*ACCUMULATED, "--ckpt_path", run.checkpoint("stopped"), name="resumed") == 0
    assert run.same_weights("whole", "resumed")


def test_a_validation_within_a_step_saves_only_the_best(run, injected) -> None:
    """After the first of the second step's batches; the run is killed in the third step."""
    validated = (*ACCUMULATED, "--data.options.validation", str(run.folder / "validation.jsonl"),
                 "--trainer.val_check_interval", "3")  # fmt: skip
    assert run(*validated, *injected("SignalAtBatch", batch=4, name="SIGINT", times=2)) == 130
    assert run.content(file="best")["global_step"] == 1
    assert not (run.folder / "run" / "checkpoints" / "last.ckpt").exists()
