"""The training card, from which reports and model cards are written."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.model.loading import own_options
from lit_retrofit.training.environment import environment


class TrainingCard(Callback):
    """Writes ``training.json``: what was trained, on what, how long, and how it went.

    Args:
        folder: the run's output folder.
    """

    FILE = "training.json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; the card of an earlier run no longer holds."""
        self._started = time.time()
        if trainer.is_global_zero:
            (self.folder / self.FILE).unlink(missing_ok=True)
        if trainer.logger is not None:
            trainer.logger.log_hyperparams(_options(pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the card."""
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        card = {
            "format": 1,
            "started": self._started,
            "seconds": time.time() - self._started,
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "precision": str(trainer.precision),
            **_options(pl_module),
            "sampling": asdict(data.sampling),
            "data": data.card(),
            "environment": environment(pl_module.device, trainer.world_size),
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        }
        with new_text_file(self.folder / self.FILE, overwrite=True) as file:
            json.dump(card, file, indent=1, ensure_ascii=False)


def _options(module: Any) -> dict[str, Any]:
    """Of the encoder, or of both, and what the module has of its own."""
    encoders = {key.removesuffix("_options"): of_one for key, of_one in own_options(module.encoder).items()}
    return {**encoders, **module.options}
