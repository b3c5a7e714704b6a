"""Checkpoints under a full disk, cut short, with code inside, or of another configuration."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.training.checkpoint_io import AtomicCheckpointIO

# The system cuts every file of the process at this size, as a full disk would.
SMALL_DISK = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
             "resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))"  # fmt: skip


def test_a_checkpoint_is_replaced_in_one_step(tmp_path, monkeypatch) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "deep" / "last.ckpt"
    io.save_checkpoint({"step": 1, "weight": torch.ones(3)}, path)
    real, seen = Path.replace, []

    def replace(self, target):
        seen.append(torch.load(self, weights_only=True)["step"])  # whole before it gets the name
        assert self.parent == path.parent  # on the same file system
        assert torch.load(path, weights_only=True)["step"] == 1
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    io.save_checkpoint({"step": 2, "weight": torch.ones(3)}, path)
    assert seen == [2]
    assert io.load_checkpoint(path)["step"] == 2
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch, error) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)

    def fail(content, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be written .*checkpoint of before is unharmed"):
        io.save_checkpoint({"step": 2}, path)
    assert io.load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be written \(File exists\)"):
        AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "checkpoints" / "last.ckpt")


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys) -> None:
    torch.save({"x": Code()}, tmp_path / "bad.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "bad.ckpt", weights_only=False)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_what_was_saved(run, injected) -> None:
    """The first epoch fits; then the run goes on where no file may reach a checkpoint's size."""
    assert run(*injected("SignalAt", step=4, name="SIGTERM")) == 143
    before = Path(run.checkpoint()).read_bytes()
    size = len(before) // 2
    full = run.process("--ckpt_path", run.checkpoint(), code=SMALL_DISK.format(bytes=size))
    assert full.returncode == 2
    (line,) = [line for line in full.stderr.splitlines() if "error:" in line]
    assert "cannot be written" in line and "Traceback" not in full.stderr
    assert Path(run.checkpoint()).read_bytes() == before
    assert sorted(path.name for path in Path(run.checkpoint()).parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert run("--ckpt_path", run.checkpoint()) == 0
    assert run(name="whole") == 0
    assert run.same_weights("whole", "run")


def test_a_checkpoint_that_cannot_be_gone_on_from(run, tmp_path, capsys) -> None:
    assert run("--trainer.max_epochs", "1") == 0
    whole = Path(run.checkpoint()).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        (tmp_path / "cut.ckpt").write_bytes(content)
        capsys.readouterr()
        assert run("--ckpt_path", str(tmp_path / "cut.ckpt"), name="resumed") == 2
        error = capsys.readouterr().err
        assert "cut.ckpt: not a readable checkpoint" in error and "Traceback" not in error
        assert not (run.folder / "resumed" / "checkpoints").exists()
    others = [
        (("--model.encoder.lora.r", "2"), "lora.r 4"),
        (("--model.encoder.lora", "null"), "weights are not those"),
        (("--model.encoder.lora.alpha", "8"), "lora.alpha 32"),
        (("--model.encoder.query_prompt", "ask: "), "query_prompt 'query: '"),
        (("--model.encoder.pooling", "cls"), "pooling 'mean'"),
    ]
    for options, told in others:
        assert run(*options, "--ckpt_path", run.checkpoint(), name="resumed") == 2
        error = capsys.readouterr().err
        assert told in error and "config.yaml" in error and "Traceback" not in error
    # What only training uses may change.
    changed = ("--model.encoder.dropout", "0", "--model.encoder.lora.dropout", "0")
    assert run(*changed, "--ckpt_path", run.checkpoint(), name="resumed") == 0


def rates(run, name: str = "run") -> list[float]:
    return run.column("lr-AdamW", name) or run.column("lr-AdamW/pg1", name)


def test_the_configurations_rate_and_decay_hold_after_a_resume(run, caplog) -> None:
    """Six steps of nine in the schedule of the run; what was changed is told in one line."""
    assert run("--trainer.max_epochs", "1", name="first") == 0
    goes_on = ("--ckpt_path", run.checkpoint("first"))
    assert run(*goes_on, "--trainer.max_epochs", "3", name="same") == 0
    (told,) = [line for line in caplog.messages if "other options" in line]
    assert told.endswith("checkpoint: trainer.max_epochs 1 → 3")
    caplog.clear()
    lower = ("--model.optimizer.learning_rate", "0.001", "--model.optimizer.weight_decay", "0.5",
             "--model.objective.temperature", "0.2")  # fmt: skip
    assert run(*goes_on, *lower, "--trainer.max_epochs", "3", name="lower") == 0
    (told,) = [line for line in caplog.messages if "other options" in line]
    assert told.endswith(
        "model.objective.temperature 0.1 → 0.2, model.optimizer.learning_rate 0.01 → 0.001, "
        "model.optimizer.weight_decay 0.01 → 0.5, trainer.max_epochs 1 → 3"
    )
    # Linear to zero over nine steps, of which round(0.9) warm up: the fourth to the ninth.
    expected = [(9 - step) / 8 for step in range(3, 9)]
    assert rates(run, "same") == pytest.approx([0.01 * share for share in expected])
    assert rates(run, "lower") == pytest.approx([0.001 * share for share in expected])
    (group,) = run.content("lower")["optimizer_states"][0]["param_groups"]
    assert group["weight_decay"] == 0.5
    caplog.clear()
    assert run("--trainer.max_epochs", "1", *goes_on, name="again") == 0
    assert not [line for line in caplog.messages if "other options" in line]


def test_what_is_said_to_do_about_a_loss_that_is_no_number(run, injected) -> None:
    spoiled = injected("NotANumberAt", step=4)
    assert run("--save_minutes", "0", *spoiled) == 2
    lower = ("--model.optimizer.learning_rate", "0.0001", "--ckpt_path", run.checkpoint())
    assert run(*lower, name="lower") == 0
    assert rates(run, "lower") == pytest.approx([0.0001 * (9 - step) / 8 for step in range(4, 9)])


def test_the_last_state_is_saved_as_often_as_asked(run, injected, capsys) -> None:
    assert run(*injected("SignalAt", step=2, name="SIGINT", times=2), "--save_minutes", "0") == 130
    assert run.content()["global_step"] == 1
    assert run("--save_minutes", "-1", name="never") == 2
    assert "save_minutes" in capsys.readouterr().err
