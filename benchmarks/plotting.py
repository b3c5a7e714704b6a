"""Plots as files, where matplotlib is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any


def can_plot() -> bool:
    """Whether matplotlib is there; says so if not."""
    if find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed (pip install lit-retrofit[benchmarks])")
        return False
    return True


def subplots(path: Path, rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    """A figure and its (rows, columns) axes: without a display, and the same file for the same data."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, squeeze=False, **settings)


def save(figure: Any, path: Path) -> None:
    """Writes and closes a figure."""
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
