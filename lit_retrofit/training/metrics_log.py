"""``metrics.csv``, also of a run that goes on from a checkpoint."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lit_retrofit.data.writing import new_text_file

FILE = "metrics.csv"


def csv_logger(folder: Path, checkpoint: str | None) -> CSVLogger:
    """The run's log. A run that goes on in its folder keeps the lines before the checkpoint's step.

    A line that a kill or a full disk has cut short is left out. Only the first rank touches the file.

    Args:
        folder: the run's output folder.
        checkpoint: what the run goes on from, if it does.
    """
    return _Logger(folder, checkpoint)


class _Logger(CSVLogger):
    def __init__(self, folder: Path, checkpoint: str | None) -> None:
        # Each line at once: what is logged before a checkpoint must be there after a kill.
        super().__init__(save_dir=folder, name="", version="", flush_logs_every_n_steps=1)
        self._folder, self._checkpoint = folder, checkpoint

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file, from the first time that it is asked for."""
        if self._experiment is None:
            self._experiment = _Writer(self._folder, _lines_before(self._folder / FILE, self._checkpoint))
        return self._experiment


class _Writer(ExperimentWriter):
    """Lightning's, but what takes the place of the file is written beside it: a kill leaves one of the two.

    Args:
        folder: with the file.
        kept: the lines to begin with; others that the file has are dropped.
    """

    def __init__(self, folder: Path, kept: Sequence[Mapping[str, str]]) -> None:
        super().__init__(log_dir=str(folder))
        self._path = folder / FILE
        if kept:
            self.metrics_keys = list(kept[0])
            self._replace(self.metrics_keys, kept)
        else:
            self._path.unlink(missing_ok=True)

    def _check_log_dir_exists(self) -> None:
        """Lightning would delete the file here."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with self._path.open(encoding="utf-8", newline="") as file:
            self._replace(fieldnames, list(csv.DictReader(file)))

    def _replace(self, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        with new_text_file(self._path, overwrite=True) as file:
            lines = csv.DictWriter(file, fieldnames=names)
            lines.writeheader()
            lines.writerows(rows)


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
