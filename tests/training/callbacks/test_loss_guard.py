"""A loss that is not a number ends the run before it reaches a weight."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.training.callbacks import LossGuard


@pytest.mark.parametrize("gradient", [False, True])
def test_the_run_stops_and_names_the_records(run, injected, capsys, gradient: bool) -> None:
    spoiled = injected("NotANumberAt", step=4, gradient=str(gradient).lower())
    assert run("--save_minutes", "0", *spoiled) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "nan_batch.json" in line and "step 4" in line and "last.ckpt" in line
    report = json.loads((run.folder / "run" / "nan_batch.json").read_text())
    assert (report["step"], report["epoch"]) == (4, 1)
    assert report["gradient norm" if gradient else "loss"] in ("nan", "inf")
    assert len(set(report["record_ids"])) == 10
    # The fifth step's records: the same as without the fault.
    assert set(report["record_ids"]) == set(fifth_steps_records(run))
    saved = run.content()
    assert saved["global_step"] == 4
    assert all(weight.isfinite().all() for weight in saved["state_dict"].values())


def fifth_steps_records(run) -> list[str]:
    from lit_retrofit.data.datamodule import RetrievalData
    from lit_retrofit.data.mixture import Mixture
    from lit_retrofit.data.options import DataOptions, SamplingOptions

    options = DataOptions(train=(str(run.folder / "train.jsonl"),), validation_share=0.0)
    data = RetrievalData(options, SamplingOptions(10))
    data.setup("fit")
    mixture = Mixture(data.sources, data.sampling)
    epoch, position = divmod(4, len(mixture))
    return [draw.record.id for draw in mixture.batch(epoch, position)]


def test_accumulated_batches_are_all_named(run, injected) -> None:
    spoiled = injected("NotANumberAt", step=0, gradient="true")
    assert run("--trainer.accumulate_grad_batches", "2", *spoiled) == 2
    report = json.loads((run.folder / "run" / "nan_batch.json").read_text())
    assert len(set(report["record_ids"])) == 20


def fp16_steps(folder, overflows_at: float, steps: int) -> torch.Tensor:
    """Trains one weight with a scaler; its gradient overflows where the scale is as large or larger."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    scaler = torch.amp.GradScaler("cpu")
    trainer: Any = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler), is_global_zero=True, global_step=7, current_epoch=0
    )
    guard = LossGuard(folder)
    for _ in range(steps):
        optimizer.zero_grad()
        scaler.scale(weight.sum()).backward()
        if scaler.get_scale() >= overflows_at:
            weight.grad.fill_(torch.nan)
        scaler.unscale_(optimizer)
        guard.on_before_optimizer_step(trainer, None, optimizer)  # type: ignore[arg-type]
        scaler.step(optimizer)
        scaler.update()
    return weight.detach()


def test_under_fp16_an_overflow_is_left_to_the_scaler(tmp_path) -> None:
    assert fp16_steps(tmp_path, overflows_at=1.0, steps=18).item() == pytest.approx(0.9)
    assert not (tmp_path / "nan_batch.json").exists()


def test_under_fp16_a_gradient_that_no_scale_helps_stops_the_run(tmp_path) -> None:
    with pytest.raises(UserError, match="the gradient norm of step 7 is nan"):
        fp16_steps(tmp_path, overflows_at=0.0, steps=18)
    assert json.loads((tmp_path / "nan_batch.json").read_text())["gradient norm"] == "nan"


def test_a_sound_run_writes_no_report(run) -> None:
    assert run("--trainer.max_steps", "1") == 0
    assert not (run.folder / "run" / "nan_batch.json").exists()
    assert torch.tensor(run.column("train/loss")).isfinite().all()


@pytest.mark.slow
def test_a_dead_data_worker_is_told_in_one_line(run, injected, capsys) -> None:
    """The workers hold some steps ready, then there is nothing more to come."""
    killed = injected("KillWorkerAt", step=2)
    assert run("--data.options.workers", "2", "--save_minutes", "0", *killed) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "a data worker died" in line and "memory" in line
    assert run("--data.options.workers", "2", "--ckpt_path", run.checkpoint()) == 0
    assert run(name="whole") == 0
    assert run.same_weights("whole", "run")
