"""Several runs beside each other, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.report.building import Sides, build_run
from lit_retrofit.report.certainty import Key
from lit_retrofit.report.comparison import SIDES, Comparison
from lit_retrofit.report.cost import Cost
from lit_retrofit.report.html import make_environment
from lit_retrofit.report.locating import locate
from lit_retrofit.report.matching import compare
from lit_retrofit.report.numbers import plain
from lit_retrofit.report.page import draw_curves
from lit_retrofit.report.sources import TrainingRun
from lit_retrofit.report.summary import Summary


@dataclass(frozen=True)
class Run:
    """One run of the page.

    Attributes:
        name: its folder's, or its path where several folders have that name.
        comparison: before and after.
        summary: its headline numbers.
        training: its training.
        cost: time and price.
        against: the trained model against the first run's; None for the first run itself.
    """

    name: str
    comparison: Comparison
    summary: Summary
    training: TrainingRun | None
    cost: Cost
    against: Comparison | None

    def scores(self, key: Key) -> float:
        """The trained model's nDCG@10 in a task."""
        return next(task.change.after for task in self.comparison.tasks if task.key == key)

    def lead(self, key: Key) -> Any:
        """The task's change against the first run; None for the first run."""
        if self.against is None:
            return None
        return next(task.change for task in self.against.tasks if task.key == key)


@dataclass(frozen=True)
class Several:
    """What the page tells.

    Attributes:
        title: its heading.
        runs: in the order given.
    """

    title: str
    runs: tuple[Run, ...]

    @property
    def summaries(self) -> list[Summary]:
        """The headline numbers of each run."""
        return [run.summary for run in self.runs]


def read_several(runs: Sequence[Path], title: str | None, price: float | None) -> Several:
    """Reads runs, measured on the same data.

    Args:
        runs: their folders.
        title: heading of the page.
        price: of an hour of one device.

    Raises:
        UserError: a run is named twice, a part of it is missing or damaged, or the data differ.
    """
    places = [run.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise UserError("a run is named twice; name each run once")
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    found: list[Run] = []
    first: Path | None = None
    for name, run in zip(names, runs, strict=True):
        inputs = locate(run)
        sides = Sides((inputs.before, inputs.after), SIDES, (None, inputs.training), inputs.mining)
        comparison, summary, training, spent = build_run(sides, price)
        against = None
        if first is not None:
            against = compare(first, inputs.after, comparison.trained, (names[0], name))
        first = first or inputs.after
        found.append(Run(name, comparison, summary, training, spent, against))
    return Several(title or f"{len(found)} runs beside each other", tuple(found))


def render_several(several: Several) -> str:
    """The page as HTML. All texts are escaped; nothing is loaded from anywhere."""
    trainings = {run.name: run.training for run in several.runs if run.training is not None}
    return make_environment().get_template("several.html.jinja").render(
        title=several.title,
        runs=several.runs,
        first=several.runs[0],
        blocks=several.runs[0].comparison.blocks,
        curves=draw_curves(trainings),
        differing=_differing(trainings),
        trainings=trainings,
        headings=[
            (label, name)
            for label, name in (
                ("Monolingual", "monolingual"), ("Cross-lingual", "cross_lingual"),
                ("Zero-shot", "zero_shot"), ("All queries", "all"),
            )
            if any(getattr(run.summary, name) is not None for run in several.runs)
        ],
        version=version("lit-retrofit"),
    )  # fmt: skip


def _differing(trainings: dict[str, TrainingRun]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs, with each run's value."""
    flat = [
        {f"{group}.{name}": plain(value) for group, values in run.settings for name, value in values}
        for run in trainings.values()
    ]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [(name, [one.get(name, "–") for one in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]
