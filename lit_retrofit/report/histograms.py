"""The geometry of histograms and bars; ``charts.html.jinja`` draws them as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_retrofit.report.charts import ROW, WIDTH, Scale, nice_ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 8, WIDTH - 8, 10, 120


@dataclass(frozen=True, slots=True)
class Series:
    """A set of values in the chart; ``points`` are the corners of its area."""

    name: str
    points: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of one or several sets of values per bin.

    Attributes:
        title: said to who cannot see it.
        series: one area each, drawn in this order.
        ticks: x and text of the marks below.
        limit: x of a vertical line, or None.
        base: y of the axis.
        height: of the picture.
    """

    title: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    limit: float | None
    base: float = _BOTTOM
    height: float = _BOTTOM + 20


def histogram(title: str, edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> Histogram:
    """Sets of values over the same bins, each as shares of its own number.

    Args:
        title: of the picture.
        edges: of the bins, rising; one more than there are bins.
        counts: values per bin of each set; sets without values are left out.
    """
    x = Scale(edges[0], edges[-1], _LEFT, _RIGHT, nice_ticks(edges[0], edges[-1], 6))
    ticks = tuple((x(tick), x.label(tick)) for tick in x.ticks)
    return Histogram(title, _areas([x(edge) for edge in edges], counts), ticks, None)


def growing_histogram(
    title: str, edges: Sequence[int], counts: Mapping[str, Sequence[int]], limit: float | None
) -> Histogram:
    """The same over bins that grow, drawn equally wide.

    Args:
        title: of the picture.
        edges: of the bins, rising.
        counts: values per bin of each set.
        limit: marked by a line, where it lies within the bins.
    """
    wide = (_RIGHT - _LEFT) / (len(edges) - 1)
    at = [_LEFT + wide * i for i in range(len(edges))]
    step = max(1, -(-len(edges) // 7))
    ticks = tuple((round(at[i], 1), f"{edges[i]:,}") for i in range(0, len(edges), step))
    line = None
    if limit is not None and edges[0] <= limit < edges[-1]:
        below = max(i for i, edge in enumerate(edges) if edge <= limit)
        inside = (limit - edges[below]) / (edges[below + 1] - edges[below])
        line = round(at[below] + wide * inside, 1)
    return Histogram(title, _areas(at, counts), ticks, line)


def _areas(at: Sequence[float], counts: Mapping[str, Sequence[int]]) -> tuple[Series, ...]:
    shares = {name: [c / sum(found) for c in found] for name, found in counts.items() if sum(found)}
    top = max((share for found in shares.values() for share in found), default=1.0)
    areas = []
    for name, found in shares.items():
        corners = [f"{at[0]:.1f},{_BOTTOM}"]
        for left, right, share in zip(at, at[1:], found, strict=False):
            y = _BOTTOM - share / top * (_BOTTOM - _TOP)
            corners += [f"{left:.1f},{y:.1f}", f"{right:.1f},{y:.1f}"]
        areas.append(Series(name, " ".join([*corners, f"{at[-1]:.1f},{_BOTTOM}"])))
    return tuple(areas)


@dataclass(frozen=True, slots=True)
class Bar:
    """A labelled count; ``y`` is the middle of its line."""

    label: str
    count: int
    y: float
    length: float


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts as horizontal bars.

    Attributes:
        title: said to who cannot see it.
        bars: in the order given.
        start: x where they begin.
        height: of the picture.
    """

    title: str
    bars: tuple[Bar, ...]
    start: float
    height: float


_LABELS, _NUMBERS = 108, 64


def bars(title: str, counts: Mapping[str, int], most: int = 12) -> Bars:
    """The counts as bars; those beyond ``most`` are added up in one.

    Args:
        title: of the picture.
        counts: the largest first; there must be one.
        most: bars to draw.
    """
    shown = dict(list(counts.items())[:most])
    rest = sum(list(counts.values())[most:])
    if rest:
        shown[f"{len(counts) - most} others"] = rest
    top = max(shown.values())
    width = WIDTH - _LABELS - _NUMBERS
    drawn = tuple(
        Bar(label, count, ROW * (i + 0.5), round(max(1.5, width * count / top), 1))
        for i, (label, count) in enumerate(shown.items())
    )
    return Bars(title, drawn, _LABELS, ROW * len(drawn) + 4)
