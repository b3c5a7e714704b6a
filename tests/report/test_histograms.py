"""Shares, bins and marks of the histograms, by hand."""

from __future__ import annotations

import pytest

from lit_retrofit.report.histograms import bars, growing_histogram, histogram


def heights(points: str, base: float) -> list[float]:
    """Of the steps, in the picture's units."""
    corners = [tuple(map(float, corner.split(","))) for corner in points.split()]
    return [base - y for _, y in corners[1:-1:2]]


def test_each_set_is_drawn_as_shares_of_itself() -> None:
    chart = histogram("t", (0.0, 0.5, 1.0), {"a": (1, 3), "b": (10, 10), "none": (0, 0)})
    a, b = chart.series
    assert heights(b.points, chart.base) == pytest.approx([2 / 3 * 110] * 2, abs=0.1)
    assert heights(a.points, chart.base) == pytest.approx([110 / 3, 110], abs=0.1)
    assert chart.limit is None and chart.ticks[0][1] == "0.0"


def test_bins_that_grow_are_equally_wide() -> None:
    chart = growing_histogram("t", (4, 6, 8, 12), {"a": (1, 0, 1)}, 10)
    assert chart.ticks == ((8.0, "4"), (116.0, "6"), (224.0, "8"), (332.0, "12"))
    assert chart.limit == 278.0
    assert growing_histogram("t", (4, 6), {"a": (1,)}, 3).limit is None


def test_bars_beyond_the_most_are_added_up() -> None:
    chart = bars("t", {"a": 8, "b": 4, "c": 3, "d": 2}, most=2)
    assert [(bar.label, bar.count) for bar in chart.bars] == [("a", 8), ("b", 4), ("2 others", 5)]
    assert chart.bars[1].length * 2 == chart.bars[0].length
