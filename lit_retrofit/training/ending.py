"""What a finished run says: where it is, how good it is, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger


def ending(trainer: Trainer, folder: Path) -> list[str]:
    """The lines that `fit` ends with.

    Args:
        trainer: has finished.
        folder: of the run.
    """
    lines = [f"trained {trainer.global_step} steps; the run is in {folder}"]
    kept = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    lines += [
        f"best checkpoint: {one.best_model_path} ({one.monitor} {float(one.best_model_score):.4f})"
        for one in kept
        if one.monitor is not None and one.best_model_score is not None
    ]
    lines += [f"Weights & Biases' run: {place}" for place in _wandb_folders(trainer)]
    if any((folder / "checkpoints").glob("*.ckpt")):
        measured, exported = folder / "evaluation", folder / "export"
        lines += [
            "next:",
            f"  {shlex.join(['lit-retrofit', 'evaluate', str(folder)])} --data DATA --output "
            f"{shlex.quote(str(measured))}",
            f"  {shlex.join(['lit-retrofit', 'export', str(folder), '--output', str(exported)])}",
        ]
    return lines


def _wandb_folders(trainer: Trainer) -> list[str]:
    """Where runs lie that are not uploaded, and how they can be: W&B is silent about them."""
    return [
        f"offline; upload it with: {shlex.join(['wandb', 'sync', str(Path(logger.experiment.dir).parent)])}"
        for logger in trainer.loggers
        if isinstance(logger, WandbLogger) and logger._offline
    ]
