"""Ctrl-C and SIGTERM: the step is ended, its state saved, and the user told how to go on."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_retrofit.errors import Interrupted
from lit_retrofit.training.callbacks.whole_steps import as_far_as_it_came, ended_a_step

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(Checkpoint):
    """Saves ``checkpoints/last.ckpt`` and ends the run after the step (or the validation) that a signal hit.

    A signal during the step itself, any of its accumulated batches, is only noted, so that no half-made
    update is ever saved. With several ranks all stop after the same step, whichever of them got the signal.
    A second signal ends the process at once, and what was saved before stays valid.

    It is one of Lightning's checkpoint callbacks because these run last: the step is in the logs by then,
    and what other callbacks save is saved.

    Args:
        folder: the run's output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def checkpoint(self) -> Path:
        """Where the state goes."""
        return self.folder / "checkpoints" / "last.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals; Python allows it in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: Any) -> None:
        self._received = number
        again = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, again)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops here if a signal came and the batch ended an optimizer step."""
        if ended_a_step(trainer, batch_idx) and self._told(trainer):
            # The Trainer itself would log the step only after this hook.
            for logger in trainer.loggers:
                # Those of the last validation are in the log.
                figures = {
                    name: float(value)
                    for name, value in trainer.logged_metrics.items()
                    if not name.startswith("val/")
                }
                logger.log_metrics(figures, trainer.global_step - 1)
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise: the signal may have come during validation."""
        if self._told(trainer):
            with as_far_as_it_came(trainer):
                self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the signals back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _told(self, trainer: Trainer) -> bool:
        """The ranks may get the signal in different steps, or only one may get it."""
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _stop(self, trainer: Trainer) -> None:
        number = self._received or signal.SIGTERM
        trainer.save_checkpoint(self.checkpoint)
        message = (
            f"stopped by {signal.Signals(number).name} after step {trainer.global_step}, which is saved; "
            f"go on with{self._command()}"
        )
        raise Interrupted(message if trainer.is_global_zero else "", number)

    def _command(self) -> str:
        """What goes on: a command where the run has saved its configuration, as those of `fit` do."""
        config = self.folder / "config.yaml"
        if not config.exists():
            return f" the same options and --ckpt_path {shlex.quote(str(self.checkpoint))}"
        words = ["lit-retrofit", "fit", "--config", str(config), "--ckpt_path", str(self.checkpoint)]
        return f": {shlex.join(words)}"
