"""Callbacks that do to a run what happens to runs. The command line imports them by this module's name."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

import torch
from lightning import Callback


class SignalAt(Callback):
    """Sends this process a signal in the middle of a step, or of the validation after it."""

    def __init__(self, step: int, name: str, times: int = 1, validating: bool = False) -> None:
        self.step, self.number = step, signal.Signals[name]
        self.times, self.validating = times, validating

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        if not self.validating:
            self._send(trainer.global_step + 1)

    def on_validation_start(self, trainer, pl_module) -> None:
        if self.validating and not trainer.sanity_checking:
            self._send(trainer.global_step)

    def _send(self, step: int) -> None:
        if step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class SignalAtBatch(Callback):
    """Sends this process a signal in the middle of a batch, counted over the epochs from 0."""

    def __init__(self, batch: int, name: str, times: int = 1) -> None:
        self.batch, self.number, self.times = batch, signal.Signals[name], times

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class TimeIsUpAtBatch(Callback):
    """Lets the time between two checkpoints be over in a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            for callback in trainer.checkpoint_callbacks:
                callback._last_time_checked = float("-inf")


class NotANumberAt(Callback):
    """Spoils the loss of a step, or its gradient."""

    def __init__(self, step: int, gradient: bool = False) -> None:
        self.step, self.gradient = step, gradient

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        if not self.gradient and trainer.global_step == self.step:
            loss.data.fill_(float("nan"))

    def on_after_backward(self, trainer, pl_module) -> None:
        if self.gradient and trainer.global_step == self.step:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.view(-1)[0] = torch.inf


class KillWorkerAt(Callback):
    """Kills a data worker, as the system does when memory runs out."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            import multiprocessing

            multiprocessing.active_children()[0].kill()


class WeightsOfEachStep(Callback):
    """Keeps the trained weights after every step."""

    seen: ClassVar[list[dict[str, torch.Tensor]]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self._keep(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self._keep(pl_module)

    def _keep(self, module) -> None:
        kept = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
        WeightsOfEachStep.seen.append(kept)


class EpochsEnded(Callback):
    """Writes the step of each epoch's end and of each validation into a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._write(f"epoch {trainer.current_epoch} after {trainer.global_step}")

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self._write(f"validation after {trainer.global_step}")

    def _write(self, line: str) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class SignalIn(Callback):
    """Sends this process a signal in one of Lightning's hooks."""

    def __init__(self, hook: str, name: str) -> None:
        self.number = signal.Signals[name]
        setattr(self, hook, self._send)

    def _send(self, *arguments: object) -> None:
        os.kill(os.getpid(), self.number)
