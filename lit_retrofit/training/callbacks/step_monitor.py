"""Throughput, memory and where a step's time goes."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_retrofit.data.batching import RetrievalBatch


class StepMonitor(Callback):
    """Logs each step's throughput, padding share, peak memory and the parts of its time.

    - ``train/queries_per_second``, ``train/tokens_per_second``: of all ranks together, by the slowest.
    - ``train/padding_share``: of the computed tokens, of all ranks; 0 where texts are packed.
    - ``train/peak_memory_gb``: of the rank that needs the most.
    - ``train/forward_share``, ``train/backward_share``: of the step's time: micro-batches embedded and the
      loss; the gradient's way back, the second embedding included. The rest is optimizer and callbacks.
    - ``train/data_seconds``: waited for the batch, the longest wait of any rank. After a
      validation or a checkpoint the wait is not known, and the figure of the step before stands.

    On a GPU the loss and the optimizer step wait for what was launched before, so the times hold there too.
    """

    FIGURES = (
        "train/queries_per_second", "train/tokens_per_second", "train/padding_share", "train/peak_memory_gb",
        "train/forward_share", "train/backward_share", "train/data_seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self._ended: float | None = None
        self._started = self._loss = self._gradients = 0.0
        self._waited = float("nan")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to wait for the first batch."""
        self._ended = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()
        self._waited = float("nan") if self._ended is None else self._started - self._ended

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """The loss is there."""
        self._loss = time.perf_counter()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The gradients are there."""
        self._gradients = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        """Stops the clock and logs."""
        ended = time.perf_counter()
        own = [
            len(batch.positives), batch.tokens, pl_module.computed_tokens(batch), ended - self._started,
            self._loss - self._started, self._gradients - self._loss, self._waited,
            peak_memory(pl_module.device) / 1e9,
        ]  # fmt: skip
        pl_module.log_dict(_figures(_of_all_ranks(own, trainer)), batch_size=1)
        self._ended = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The time to the next batch is not all waiting for data."""
        self._ended = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Likewise."""
        self._ended = None


def _of_all_ranks(own: list[float], trainer: Trainer) -> Tensor:
    """(ranks, figures) float64, by one small exchange per step."""
    figures = torch.tensor(own, dtype=torch.float64)
    if trainer.world_size == 1:
        return figures[None]
    # The group's device may lack float64; these numbers need no more than float32.
    gathered: Any = trainer.strategy.all_gather(figures.float().to(trainer.strategy.root_device))
    return gathered.double().cpu()


def _figures(ranks: Tensor) -> dict[str, float]:
    queries, tokens, padded = ranks[:, :3].sum(dim=0).tolist()
    # NaN, an unknown wait of one rank, makes the longest wait unknown too.
    seconds, forward, backward, waited, memory = ranks[:, 3:].amax(dim=0).tolist()
    values = (
        queries / seconds, tokens / seconds, 1 - tokens / padded, memory, forward / seconds,
        backward / seconds, waited,
    )  # fmt: skip
    figures = dict(zip(StepMonitor.FIGURES, values, strict=True))
    return {name: value for name, value in figures.items() if value == value}


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of the allocator on CUDA, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
