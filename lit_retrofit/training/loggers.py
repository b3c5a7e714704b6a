"""Where a run is logged: metrics.csv always, Weights & Biases unless it is turned off."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger

from lit_retrofit.training.metrics_log import csv_logger


def loggers(folder: Path, *, checkpoint: str | None, wandb: bool) -> list[Logger]:
    """The loggers of a run in `folder` that goes on from `checkpoint`, if it does."""
    made: list[Logger] = [csv_logger(folder, checkpoint)]
    if wandb:
        made.append(_wandb_logger(folder))
    return made


def _wandb_logger(folder: Path) -> WandbLogger:
    """Offline it says nothing: what it knows to say is in the lines that `fit` ends with."""
    from wandb import Settings  # slow to import

    folder.mkdir(parents=True, exist_ok=True)  # or W&B warns that it can look for no repository there
    offline = not _logged_in_to_wandb()
    # The entity is the client's own to find; a project that is given here would win over the user's.
    project = os.environ.get("WANDB_PROJECT") or "lit-retrofit"
    logger = WandbLogger(project=project, save_dir=folder, offline=offline, settings=Settings(silent=offline))
    logger._wandb_init.pop(
        "anonymous", None
    )  # Lightning always gives it, and W&B warns that it has no effect
    return logger


def _logged_in_to_wandb() -> bool:
    """Whether there is a key where `wandb login` leaves it. Asking the client itself could prompt."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
