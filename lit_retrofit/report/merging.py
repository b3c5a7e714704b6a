"""The section on a merge: quality against the weight between base and trained model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.report.charts import Scale, nice_ticks

FILE = "merging.json"
_REMEDY = "give the merging.json of lit-retrofit merge, or leave --merging out"
_NUMBER = (int, float)
_FIELDS = ("models", "coefficients", "method", "weight", "measure", "data", "seconds")


@dataclass(frozen=True, slots=True)
class WeightCurve:
    """nDCG@10 by weight.

    Attributes:
        x: of the weights.
        y: of the scores.
        line: the points of a polyline, "x,y x,y …".
        points: (weight, score) of each measured weight.
        picked: the chosen one.
        untrained: the line of languages never trained on; empty where there are none.
    """

    x: Scale
    y: Scale
    line: str
    points: tuple[tuple[float, float], ...]
    picked: tuple[float, float]
    untrained: str

    @property
    def base(self) -> float:
        """The score at weight 0."""
        return dict(self.points)[0.0]

    @property
    def whole(self) -> float:
        """The score at weight 1."""
        return dict(self.points)[1.0]


@dataclass(frozen=True, slots=True)
class Merging:
    """What ``merge`` did.

    Attributes:
        record: the content of ``merging.json``.
        curve: None where the weight was given, not picked.
    """

    record: dict[str, Any]
    curve: WeightCurve | None


def find_merging(given: Path | None, *folders: Path) -> Merging | None:
    """Reads the record that is given, or else the one in the first of the folders that has one.

    Raises:
        UserError: the given file is missing, or a record is damaged.
    """
    if given is None:
        found = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
        return None if found is None else read_merging(found)
    return read_merging(given / FILE if given.is_dir() else given)


def read_merging(path: Path) -> Merging:
    """Reads what ``merge`` wrote beside its model.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_REMEDY}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        points = [(point["weight"], point["score"], point["untrained"]) for point in record["scan"]]
        known = {
            name: record[name]
            for name in ("models", "coefficients", "method", "weight", "measure", "data", "seconds")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged, or another file ({error}); {_REMEDY}") from None
    numbers = [known["weight"], *(value for point in points for value in point if value is not None)]
    if not all(isinstance(value, _NUMBER) for value in numbers):
        raise UserError(f"{path}: a weight or score is no number; {_REMEDY}")
    if points and not {0, 1, known["weight"]} <= {weight for weight, _, _ in points}:
        raise UserError(f"{path}: the scan lacks the weight 0, 1 or {known['weight']}; {_REMEDY}")
    return Merging(record, weight_curve(points, known["weight"]) if points else None)


def weight_curve(points: list[tuple[float, float, float | None]], picked: float) -> WeightCurve:
    """The geometry of the chart.

    Args:
        points: weight, score, score on languages never trained on, by weight.
        picked: one of the weights.
    """
    untrained = [(weight, value) for weight, _, value in points if value is not None]
    scores = [(weight, score) for weight, score, _ in points]
    values = [value for _, value in (*scores, *untrained)]
    # The differences between weights are small: the axis does not begin at zero.
    low, high = math.floor(min(values) * 100) / 100, math.ceil(max(values) * 100) / 100
    high = max(high, low + 0.01)
    x = Scale(points[0][0], points[-1][0], 44, 344, nice_ticks(points[0][0], points[-1][0], 6))
    y = Scale(low, high, 168, 10, nice_ticks(low, high, 6))
    lines = [" ".join(f"{x(weight)},{y(value)}" for weight, value in line) for line in (scores, untrained)]
    return WeightCurve(x, y, lines[0], tuple(scores), (picked, dict(scores)[picked]), lines[1])
