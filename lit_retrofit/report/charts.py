"""The geometry of the page's two charts; ``charts.html.jinja`` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_retrofit.report.comparison import Block, TaskChange
from lit_retrofit.report.sources import Points

MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to the picture's units, and says where the ticks are.

    Attributes:
        low: the value at `start`.
        high: the value at `end`.
        start: in the picture's units.
        end: likewise; below `start` where the axis points up.
        ticks: round values between low and high.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The position of a value, to a tenth of a unit."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def label(self, tick: float) -> str:
        """A tick's text, with as many decimals as the ticks' distance needs."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        return f"{tick:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def nice_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """At most ``most`` values, 1, 2 or 5 times a power of ten apart, inside [low, high]."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return tuple(round(i * step, 12) for i in range(first, last + 1))
    raise AssertionError("a step of 50 times span / most leaves one tick at most")


@dataclass(frozen=True, slots=True)
class DumbbellRow:
    """A language in the chart; ``y`` is the middle of its line."""

    task: TaskChange
    y: float


@dataclass(frozen=True, slots=True)
class Dumbbells:
    """Before, after and BM25 of each language of one direction.

    Attributes:
        name: the direction.
        height: of the picture.
        x: the scale, the same for all directions of a page.
        rows: trained languages first.
        divider: y of the line between trained and zero-shot languages, where there are both.
    """

    name: str
    height: float
    x: Scale
    rows: tuple[DumbbellRow, ...]
    divider: float | None


WIDTH, ROW, TOP, LABELS = 340, 24, 26, 66


def dumbbells(blocks: Sequence[Block]) -> list[Dumbbells]:
    """A chart per direction; scores range over tenths, the same in every chart."""
    tasks = [task for block in blocks for task in (*block.trained, *block.zero_shot)]
    values = [v for t in tasks for v in (t.change.before, t.change.after, t.change.bm25) if v is not None]
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10
    high = max(high, low + 0.1)
    x = Scale(low, high, LABELS, WIDTH - 12, nice_ticks(low, high, 6))
    return [_dumbbells(block, x) for block in blocks]


def _dumbbells(block: Block, x: Scale) -> Dumbbells:
    both = bool(block.trained and block.zero_shot)
    gap = float(ROW) if both else 0.0
    rows = [DumbbellRow(task, TOP + ROW * (i + 0.5)) for i, task in enumerate(block.trained)]
    start = TOP + ROW * len(rows)
    rows += [DumbbellRow(task, start + gap + ROW * (i + 0.5)) for i, task in enumerate(block.zero_shot)]
    height = TOP + ROW * len(rows) + gap + 4
    return Dumbbells(block.name, height, x, tuple(rows), start + 5 if both else None)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The training loss by step.

    Attributes:
        x: of the steps.
        y: of the loss.
        raw: the points of a polyline, "x,y x,y …".
        smooth: the same of the moving average; empty where there are too few points for one.
        first: the loss at the beginning, of the drawn line.
        last: and at the end.
        window: steps that the moving average spans at most.
    """

    x: Scale
    y: Scale
    raw: str
    smooth: str
    first: float
    last: float
    window: int


def loss_curve(points: Points) -> LossCurve | None:
    """The curve, or None for fewer than two points: a point is no curve."""
    if len(points) < 2:
        return None
    thinned = _thin(points)
    steps, values = [step for step, _ in thinned], [value for _, value in thinned]
    reach = len(values) // 40
    smooth = moving_average(values, reach)
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    x = Scale(0, steps[-1], 40, 350, nice_ticks(0, steps[-1], 5))
    y = Scale(low, high, 168, 10, nice_ticks(low, high, 6))
    window = round((steps[-1] - steps[0]) / (len(steps) - 1) * (2 * reach + 1))
    drawn = smooth if reach else values
    return LossCurve(
        x,
        y,
        _line(x, y, steps, values),
        _line(x, y, steps, smooth) if reach else "",
        drawn[0],
        drawn[-1],
        window,
    )


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


def _line(x: Scale, y: Scale, steps: Sequence[float], values: Sequence[float]) -> str:
    return " ".join(f"{x(step)},{y(value)}" for step, value in zip(steps, values, strict=True))
