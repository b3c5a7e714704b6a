"""Stops a run whose loss or gradient is no longer a number, before it spoils the weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_retrofit.data.batching import RetrievalBatch
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.training.sharding import global_norm


class LossGuard(Callback):
    """Ends the run at a loss or gradient that is not finite, and writes ``nan_batch.json``.

    The weights are those before the step, so every checkpoint of the run stays good. Under fp16 a
    gradient that overflows is the scaler's business: it leaves the step out and halves its scale, until that
    is below 1. Then it is no overflow, and all further steps would be left out.

    Args:
        folder: the run's output folder.
    """

    FILE = "nan_batch.json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._record_ids: list[str] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: RetrievalBatch, batch_idx: int
    ) -> None:
        """Notes whose step it is; accumulated batches end in one gradient."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._record_ids = []
        self._record_ids += batch.record_ids

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Checks the loss; the ranks agree, so that none waits for one that has stopped."""
        value = float(loss.detach())
        if trainer.strategy.reduce_boolean_decision(not math.isfinite(value), all=False):
            self._stop("loss", value, trainer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Checks the gradient, which is complete by now; all ranks find the same norm."""
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = float(global_norm(gradients))
        if not math.isfinite(norm) and not _left_to_the_scaler(trainer):
            self._stop("gradient norm", norm, trainer)

    def _stop(self, what: str, value: float, trainer: Trainer) -> None:
        values, parts = zip(*_of_all_ranks((value, self._record_ids)), strict=True)
        value = next(found for found in values if not math.isfinite(found))  # of the first rank that has one
        ids = [record_id for part in parts for record_id in part]
        step = trainer.global_step
        path = self.folder / self.FILE
        if trainer.is_global_zero:
            report = {"step": step, "epoch": trainer.current_epoch, what: str(value), "record_ids": ids}
            with new_text_file(path, overwrite=True) as file:
                json.dump(report, file, indent=1, ensure_ascii=False)
        raise UserError(
            f"the {what} of step {step} is {value}; its {len(ids)} records are named in {path}; look "
            "at them, lower model.optimizer.learning_rate or raise --trainer.precision, and go on from "
            f"{self.folder}/checkpoints/last.ckpt"
        )


def _left_to_the_scaler(trainer: Trainer) -> bool:
    """Whether a smaller scale of the loss may help. The scaler's first one is 65536."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() >= 1


def _of_all_ranks(own: tuple[float, list[str]]) -> list[tuple[float, list[str]]]:
    if not dist.is_initialized():
        return [own]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    return gathered
