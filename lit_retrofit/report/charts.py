"""Scales, and the geometry of the chart of languages; ``charts.html.jinja`` draws it as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_retrofit.report.comparison import Block, TaskChange


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
