"""Tables for Weights & Biases, wherever that logger is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger


def wandb_loggers(trainer: Trainer) -> list[WandbLogger]:
    """The run's loggers of W&B; none where it is off."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def log_rows(trainer: Trainer, key: str, rows: Sequence[dict[str, Any]]) -> None:
    """Logs a table; nothing where there is no row.

    Args:
        trainer: with its loggers.
        key: name of the table.
        rows: column → value, the same columns in each.
    """
    for logger in wandb_loggers(trainer) if rows else ():
        logger.log_table(key, list(rows[0]), [list(row.values()) for row in rows])
