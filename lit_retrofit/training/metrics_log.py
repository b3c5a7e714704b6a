"""``metrics.csv``, also of a run that goes on from a checkpoint."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger

FILE = "metrics.csv"


def csv_logger(folder: Path, checkpoint: str | None) -> CSVLogger:
    """The run's log. A run that goes on in its folder keeps the lines before the checkpoint's step.

    A line that a kill or a full disk has cut short is left out.

    Args:
        folder: the run's output folder.
        checkpoint: what the run goes on from, if it does.
    """
    kept = _lines_before(folder / FILE, checkpoint)
    # Each line at once: what is logged before a checkpoint must be there after a kill.
    logger = CSVLogger(save_dir=folder, name="", version="", flush_logs_every_n_steps=1)
    if kept:
        writer = logger.experiment  # this deletes the file of before
        writer.metrics_keys = list(kept[0])
        with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
            lines = csv.DictWriter(file, fieldnames=writer.metrics_keys)
            lines.writeheader()
            lines.writerows(kept)
    return logger


def _lines_before(log: Path, checkpoint: str | None) -> list[dict[str, str]]:
    if checkpoint is None or not log.is_file() or not Path(checkpoint).is_file():
        return []
    step = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    with log.open(encoding="utf-8", errors="replace", newline="") as file:
        # Without a line's end, the last line's last number may be cut and still look like one.
        whole = [line for line in file if line.endswith("\n")]
    return [line for line in csv.DictReader(whole) if _step_of(line) < step]


def _step_of(line: dict[str, str]) -> float:
    """Of a line of the log; infinite where it is not a whole one."""
    if None in line or None in line.values():  # fields more or fewer than the header's
        return math.inf
    try:
        return int(line["step"])
    except (ValueError, KeyError):
        return math.inf
