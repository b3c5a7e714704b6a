"""The geometry of curves over training steps; ``charts.html.jinja`` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_retrofit.report.charts import Scale, nice_ticks
from lit_retrofit.report.sources import Points

MOST_POINTS = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 350, 10, 168


@dataclass(frozen=True, slots=True)
class Line:
    """A run in the chart.

    Attributes:
        name: of the run.
        raw: the points of a polyline, "x,y x,y …".
        smooth: the same of the moving average; empty where there are too few points for one.
        first: the value at the beginning, of the drawn line.
        last: and at the end.
    """

    name: str
    raw: str
    smooth: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity by step.

    Attributes:
        name: of the quantity.
        x: of the steps.
        y: of the values.
        lines: one for each run.
        window: steps that the moving average of the first line spans at most; 0 without one.
    """

    name: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    window: int

    @property
    def flat(self) -> bool:
        """Whether nothing changes: a fixed temperature, told among the settings, needs no curve."""
        return self.y.high - self.y.low == 1.0 and all(
            len(set(_heights(line.raw))) == 1 for line in self.lines
        )


def curve(name: str, runs: Mapping[str, Points], *, from_zero: bool = False) -> Curve | None:
    """The curves of one or several runs over the same axes.

    Args:
        name: of the quantity.
        runs: its values by step, of each run. A run with fewer than two is left out: a point is no curve.
        from_zero: begin the axis at zero.

    Returns:
        None where no run has two values.
    """
    found = {run: _thin(points) for run, points in runs.items() if len(points) > 1}
    if not found:
        return None
    values = [value for points in found.values() for _, value in points]
    low, high = (0.0 if from_zero else min(values)), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    last = max(points[-1][0] for points in found.values())
    x = Scale(0, last, _LEFT, _RIGHT, nice_ticks(0, last, 5))
    y = Scale(low, high, _BOTTOM, _TOP, nice_ticks(low, high, 6))
    lines = tuple(_line(run, points, x, y) for run, points in found.items())
    return Curve(name, x, y, lines, _window(next(iter(found.values()))))


def _heights(corners: str) -> list[str]:
    return [corner.partition(",")[2] for corner in corners.split()]


def _reach(points: Sequence[tuple[float, float]]) -> int:
    return len(points) // 40


def _window(points: Sequence[tuple[float, float]]) -> int:
    reach = _reach(points)
    return round((points[-1][0] - points[0][0]) / (len(points) - 1) * (2 * reach + 1)) if reach else 0


def _line(run: str, points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> Line:
    steps, values = [step for step, _ in points], [value for _, value in points]
    smooth = moving_average(values, _reach(points)) if _reach(points) else []
    drawn = smooth or values
    return Line(
        run, _corners(x, y, steps, values), _corners(x, y, steps, smooth), drawn[0], drawn[-1]
    )  # fmt: skip


def _thin(points: Points) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points, each the mean of its neighbours: a long run stays a small file."""
    size = math.ceil(len(points) / MOST_POINTS)
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    return [(math.fsum(s for s, _ in c) / len(c), math.fsum(v for _, v in c) / len(c)) for c in chunks]


def moving_average(values: Sequence[float], reach: int) -> list[float]:
    """Each value's mean with its neighbours, ``reach`` on both sides; fewer on both near the ends."""
    means = []
    for i in range(len(values)):
        near = min(reach, i, len(values) - 1 - i)
        window = values[i - near : i + near + 1]
        means.append(math.fsum(window) / len(window))
    return means


def _corners(x: Scale, y: Scale, steps: Sequence[float], values: Sequence[float]) -> str:
    return " ".join(f"{x(step)},{y(value)}" for step, value in zip(steps, values, strict=False))
