"""A signal ends a run after its step, saved, and the run that goes on ends as the uninterrupted one."""

from __future__ import annotations

import signal

import pytest

from lit_retrofit.cli import main


@pytest.mark.parametrize(("name", "step", "status"), [("SIGINT", 4, 130), ("SIGTERM", 3, 143)])
def test_a_signal_saves_and_says_how_to_go_on(run, injected, capsys, name, step, status) -> None:
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
    command = said.split("lit-retrofit ")[-1].split()
    assert command[0] == "fit"
    # The message's own words, with the fault taken out of the configuration.
    assert main([*command, "--trainer.callbacks", "null"]) == 0
    assert run.column("train/loss", "stopped") == run.column("train/loss", "whole")
    assert run.same_weights("whole", "stopped")


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
