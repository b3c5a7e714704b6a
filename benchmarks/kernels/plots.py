"""Time, memory and error against the size of the problem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.plotting import can_plot, save, subplots

Entry = dict[str, Any]
Curves = dict[str, list[tuple[float, float]]]


def draw(results: Entry, output: Path) -> list[Path]:
    """Writes one SVG per question, beside the results; none without matplotlib."""
    if not can_plot():
        return []
    curves = {
        "time": (_times(results), "seconds"),
        "memory": (_curves(results["memory"], lambda e: e["bytes"] / 1e6), "MB beyond the inputs"),
    }
    if results["kind"] == "loss":
        curves["error"] = (_errors(results), "relative error of the queries' gradient")
    titles = {name: peer["title"] for name, peer in results["peers"].items()}
    written = []
    for name, (lines, label) in curves.items():
        path = output.with_name(f"{output.name}_{name}.svg")
        if _plot(path, lines, titles, label):
            written.append(path)
    return written


def _times(results: Entry) -> Curves:
    """The sweep's times with gradients; all shapes of the search."""
    sweep = results["settings"].get("sweep", results["settings"]["shapes"])
    entries = [
        entry
        for entry in results["timings"]
        if entry["shape"] in sweep and entry.get("pass", "forward_backward") == "forward_backward"
    ]
    return _curves(entries, lambda entry: entry["median"])


def _curves(entries: list[Entry], value: Callable[[Entry], float]) -> Curves:
    curves: Curves = {}
    for entry in entries:
        if entry["skipped"] is None:
            curves.setdefault(entry["peer"], []).append((entry["shape"]["columns"], value(entry)))
    return {name: sorted(points) for name, points in curves.items()}


def _errors(results: Entry) -> Curves:
    curves: Curves = {}
    for entry in results["errors"]:
        for name, found in entry["peers"].items():
            if entry["data"] == "nearly converged" and not isinstance(found, str):
                curves.setdefault(name, []).append((entry["shape"]["columns"], found["queries"]))
    return {name: sorted(points) for name, points in curves.items()}


def _plot(path: Path, curves: Curves, titles: dict[str, str], label: str) -> bool:
    if not any(len(points) > 1 for points in curves.values()):
        return False
    figure, ((axes,),) = subplots(path, figsize=(7, 4.5))
    for name, points in curves.items():
        width = 2.5 if name == "ours" else 1.2
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=width, label=titles[name])
    axes.set(xscale="log", yscale="log", xlabel="documents N", ylabel=label)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize="small")
    save(figure, path)
    return True
