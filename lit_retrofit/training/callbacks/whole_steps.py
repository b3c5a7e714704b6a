"""Where optimizer steps and epochs end, and checkpoints that say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def ended_a_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch of the epoch was the last of an optimizer step.

    The gradients of the batches before it are in no checkpoint: one taken there would lose them. An epoch's
    last batch ends a step, however many were accumulated.
    """
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch


@contextmanager
def as_far_as_it_came(trainer: Trainer) -> Iterator[None]:
    """At an epoch's end, what is saved meanwhile does not count an epoch that the run's end has cut short.

    Lightning has counted it by then: a run that goes on by epochs would make one too few.
    """
    epochs: Any = trainer.fit_loop.epoch_progress
    cut = 0 if trainer.is_last_batch else 1
    for counted in (epochs.total, epochs.current):
        counted.processed -= cut
    yield
    for counted in (epochs.total, epochs.current):
        counted.processed += cut


class WholeStepCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which lets an optimizer step end before it saves.

    After a validation in the middle of a step, only one that monitors a measure saves: the weights that were
    measured are what it is for. An epoch that the run's end cuts short is not counted as done.
    """

    @property
    def state_key(self) -> str:
        """Lightning's own: what the best was is also taken from a checkpoint that its class has written."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if it is time, once the step is over."""
        if ended_a_step(trainer, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves if it is time; in an epoch that ends early, what goes on from there ends it first."""
        with as_far_as_it_came(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last state if the step is over, the best in any case."""
        if self.monitor is not None or ended_a_step(trainer, trainer.fit_loop.epoch_loop.batch_idx):
            super().on_validation_end(trainer, pl_module)
