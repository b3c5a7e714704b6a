"""What training and mining left behind: the training card, the loss by step, the mining summary."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError

_NUMBER = (int, float)
_ANEW = "write the file anew, or leave it out"
_WITHOUT = "compare the evaluations alone: --before and --after without --training"
_SETTINGS = ("encoder", "document_encoder", "objective", "optimizer", "sampling")
_TRAINER = ("precision", "graph_memory", "epochs")
Points = tuple[tuple[int, float], ...]
Settings = list[tuple[str, list[tuple[str, Any]]]]


@dataclass(frozen=True, slots=True)
class LossLog:
    """The columns of ``metrics.csv`` that the page shows.

    Attributes:
        loss: (step, train/loss), by step.
        validation: (step, val/nDCG@10), by step.
        notes: what is missing or was left out, a sentence each.
        temperature: (step, train/temperature), by step.
        throughput: (step, train/tokens_per_second), by step.
        learning_rate: (step, lr-…), by step.
    """

    loss: Points
    validation: Points
    notes: tuple[str, ...]
    temperature: Points = ()
    throughput: Points = ()
    learning_rate: Points = ()


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run of ``fit``.

    Attributes:
        folder: as the user named it.
        card: the content of ``training.json``.
        log: from ``metrics.csv``.
        config: the text of ``config.yaml``; None where it is missing.
    """

    folder: Path
    card: dict[str, Any]
    log: LossLog
    config: str | None = None

    @property
    def languages(self) -> dict[str, int]:
        """Training records per language; records that name none count as "unknown"."""
        return self.card["data"]["languages"]

    @property
    def trained(self) -> frozenset[str] | None:
        """The languages trained on; None where no record names one."""
        return frozenset(self.languages.keys() - {"unknown"}) or None

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def environment(self) -> list[tuple[str, Any]]:
        """Versions, machine and code that it ran on; empty where an older run did not note them."""
        found = self.card.get("environment")
        return list(_flat(found)) if isinstance(found, dict) else []

    @property
    def device_seconds(self) -> float:
        """Wall time, times the devices."""
        devices = dict(self.environment).get("devices", 1)
        return self.card["seconds"] * (devices if isinstance(devices, int) else 1)

    @property
    def settings(self) -> Settings:
        """The recipe's options by group, flat: ``[("encoder", [("lora.r", 16), …]), …]``."""
        trainer = {name: self.card[name] for name in _TRAINER if name in self.card}
        groups = [(name, self.card.get(name) or {}) for name in _SETTINGS]
        return [(name, list(_flat(options))) for name, options in [*groups, ("trainer", trainer)] if options]


def _flat(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_training(folder: Path) -> TrainingRun:
    """Reads a run folder of ``fit``. A missing or damaged log of the loss is noted, not an error.

    Raises:
        UserError: no such folder, or its ``training.json`` (which says what was trained on) is missing
            or damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the --output folder of lit-retrofit fit")
    path = folder / "training.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: the fit did not end; run it to its end, or {_WITHOUT}")
    card = _json_object(path, f"fit again, or {_WITHOUT}")
    _check_fields(path, card, {"started": _NUMBER, "seconds": _NUMBER, "steps": int, "data": dict})
    _check_fields(path, card["data"], {"languages": dict, "records": int}, prefix="data.")
    _check_counts(path, "data.languages", card["data"]["languages"])
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
    return TrainingRun(folder, card, read_log(folder / "metrics.csv"), text)


def read_mining(path: Path) -> dict[str, Any]:
    """Reads the summary that ``mine`` wrote.

    Raises:
        UserError: the file is missing or is no such summary.
    """
    remedy = "give the .summary.json that lit-retrofit mine wrote beside its records"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    summary = _json_object(path, remedy)
    _check_fields(
        path, summary, {"started": _NUMBER, "seconds": _NUMBER, "records": dict, "candidates": dict}
    )
    for name in ("records", "candidates"):
        _check_counts(path, name, summary[name])
    return summary


def _json_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: not valid JSON, damaged or another file; {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; {remedy}")
    return content


def _check_fields(path: Path, content: dict[str, Any], fields: dict[str, Any], prefix: str = "") -> None:
    for name, kind in fields.items():
        if not isinstance(content.get(name), kind):
            problem = f"is {content[name]!r}" if name in content else "is missing"
            raise UserError(f"{path}: field '{prefix}{name}' {problem}; {_ANEW}")


def _check_counts(path: Path, field: str, counts: dict[str, Any]) -> None:
    for name, count in counts.items():
        if not isinstance(count, int):
            raise UserError(f"{path}: field '{field}.{name}' is {count!r}, no count; {_ANEW}")


def read_log(path: Path) -> LossLog:
    """Reads Lightning's CSV log, in which each row fills the columns that were logged together."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return LossLog((), (), (f"{path} is missing: the run kept no CSV log.",))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return LossLog((), (), (f"{path} cannot be read ({error}).",))
    loss, lost = _column(rows, "train/loss")
    validation, _ = _column(rows, "val/nDCG@10")
    notes = []
    if lost:
        notes.append(f"{lost} values of the loss in {path} are no finite numbers and are left out.")
    if not loss:
        notes.append(f"{path} has no value of train/loss.")
    rate = next((name for name in rows[0] if name and name.startswith("lr-")), "") if rows else ""
    others = (_column(rows, name)[0] for name in ("train/temperature", "train/tokens_per_second", rate))
    return LossLog(loss, validation, tuple(notes), *others)


def _column(rows: list[dict[str, Any]], name: str) -> tuple[Points, int]:
    """The filled cells of a column by step, and how many were left out. A resumed run's last word counts."""
    found: dict[int, float] = {}
    lost = 0
    for row in rows:
        if not row.get(name):
            continue
        try:
            step, value = int(row.get("step") or ""), float(row[name])
        except ValueError:
            lost += 1
            continue
        if math.isfinite(value):
            found[step] = value
        else:
            lost += 1
    return tuple(sorted(found.items())), lost
