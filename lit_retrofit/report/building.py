"""Collects what a page tells, out of a run's folders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data
from lit_retrofit.report.changed_queries import changed_pairs, choose, show
from lit_retrofit.report.comparison import SIDES, Comparison
from lit_retrofit.report.cost import Cost, Stage
from lit_retrofit.report.matching import compare
from lit_retrofit.report.merging import Merging, find_merging
from lit_retrofit.report.page import Page
from lit_retrofit.report.sample import draw_sample, embed_sample, place_of
from lit_retrofit.report.similarities import draw, read_similarities
from lit_retrofit.report.sources import TrainingRun, read_mining, read_training
from lit_retrofit.report.space import Space, picture
from lit_retrofit.report.summary import Summary, summarise

RIVALS = ("A", "B")


@dataclass(frozen=True)
class Sides:
    """What is set against each other.

    Attributes:
        folders: the evaluations.
        names: what to call them.
        runs: the training runs of each, where known; before training there is none.
        mining: the summary of ``mine``.
    """

    folders: tuple[Path, Path]
    names: tuple[str, str]
    runs: tuple[Path | None, Path | None]
    mining: Path | None = None


@dataclass(frozen=True)
class PageOptions:
    """What the user chose for the page.

    Attributes:
        data: where the evaluated data are now, if they have moved.
        title: heading; None takes the model's name.
        examples: queries to show.
        points: texts in the picture of the embedding space.
        price: of an hour of one device.
        merging: the record of ``merge``, if it is not beside the model.
    """

    data: str | None = None
    title: str | None = None
    examples: int = 5
    points: int = 160
    price: float | None = None
    merging: Path | None = None


def build(sides: Sides, options: PageOptions, output: Path) -> Page:
    """Reads and computes everything that a page tells of two evaluations.

    Raises:
        UserError: an input is missing or damaged, or the evaluations do not match.
    """
    runs = tuple(read_training(run) if run else None for run in sides.runs)
    mining = read_mining(sides.mining) if sides.mining else None
    comparison = compare(*sides.folders, _trained(runs, sides.names), sides.names)
    merged = find_merging(options.merging, Path(place_of(comparison.after.model, sides.runs[1])))
    data = _read_data(comparison, options.data) if options.examples or options.points else None
    changed, counts = changed_pairs(comparison.pairs)
    chosen = choose(changed, options.examples)
    notes: list[str] = []
    similarities = []
    if data is not None and comparison.pairs:
        keys = [task.key for task in comparison.tasks]
        read = (read_similarities(folder, keys, data) for folder in sides.folders)
        try:
            similarities = draw(dict(zip(sides.names, read, strict=True)))
        except UserError as error:
            notes.append(f"Similarities are left out: {error}.")
    space = None
    if data is not None and options.points:
        try:
            space = _space(comparison, data, sides, options.points)
        except UserError as error:
            notes.append(f"The picture of the embedding space is left out: {error}.")
    spent = _cost(comparison, runs, mining, merged, options.price)
    return Page(
        title=options.title or _title(comparison),
        comparison=comparison,
        summary=summarise(comparison, time.time() - _first_start(comparison, runs, mining)),
        counts=counts if options.examples else None,
        examples=show(chosen, comparison.tasks, data) if data is not None and chosen else [],
        trainings={name: run for name, run in zip(sides.names, runs, strict=True) if run is not None},
        mining=mining,
        merging=merged,
        similarities=similarities,
        space=space,
        cost=spent,
        notes=notes,
        output=output,
    )


def build_run(sides: Sides, price: float | None) -> tuple[Comparison, Summary, TrainingRun | None, Cost]:
    """What a page of several runs tells of one: its scores, headline numbers, training and cost.

    Raises:
        UserError: as ``build``.
    """
    runs = tuple(read_training(run) if run else None for run in sides.runs)
    mining = read_mining(sides.mining) if sides.mining else None
    comparison = compare(*sides.folders, _trained(runs, sides.names), sides.names)
    merged = find_merging(None, Path(place_of(comparison.after.model, sides.runs[1])))
    summary = summarise(comparison, time.time() - _first_start(comparison, runs, mining))
    return comparison, summary, runs[1], _cost(comparison, runs, mining, merged, price)


def _title(comparison: Comparison) -> str:
    if comparison.of_one_model:
        return f"{comparison.before.model}, before and after training"
    return f"{comparison.after.model} against {comparison.before.model}"


def _trained(runs: Sequence[TrainingRun | None], names: tuple[str, str]) -> frozenset[str] | None:
    """Languages that any of the sides was trained on; None where one's are not known."""
    counted = runs[1:] if names == SIDES else runs
    found = [run.trained if run is not None else None for run in counted]
    known = [languages for languages in found if languages is not None]
    return frozenset[str]().union(*known) if len(known) == len(found) else None


def _read_data(comparison: Comparison, data: str | None) -> RetrievalSet:
    path = resolve_data(data or comparison.after.data)
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder; give the evaluated data's new place with --data, or show neither "
            "queries nor the embedding space with --examples 0 --points 0"
        )
    # What to do about invalid rows was decided when the data were evaluated.
    return read_beir(path, split=comparison.after.settings.get("split"), skip_invalid=True)


def _space(comparison: Comparison, data: RetrievalSet, sides: Sides, points: int) -> Space:
    sample = draw_sample(data, points)
    if len(sample) < 3:
        raise UserError(f"{len(sample)} texts are too few for it; raise --points above {points}")
    embedded = [
        embed_sample(sample, place_of(results.model, run), results)
        for results, run in zip((comparison.before, comparison.after), sides.runs, strict=True)
    ]
    return picture(sample, sides.names, embedded[0], embedded[1])


def _cost(
    comparison: Comparison,
    runs: Sequence[TrainingRun | None],
    mining: dict[str, Any] | None,
    merged: Merging | None,
    price: float | None,
) -> Cost:
    once: list[tuple[str, float]] = [(f"Evaluation {comparison.names[0]}", comparison.before.seconds)]
    if mining:
        once.append(("Mining", mining["seconds"]))
    stages = [Stage(name, seconds, seconds) for name, seconds in once]
    for name, run in zip(comparison.names, runs, strict=True):
        if run is not None:
            label = "Training" if comparison.of_one_model else f"Training {name}"
            stages.append(Stage(label, run.card["seconds"], run.device_seconds))
    last = [("Merging", merged.record["seconds"])] if merged else []
    last.append((f"Evaluation {comparison.names[1]}", comparison.after.seconds))
    return Cost((*stages, *(Stage(name, seconds, seconds) for name, seconds in last)), price)


def _first_start(
    comparison: Comparison, runs: Sequence[TrainingRun | None], mined: dict[str, Any] | None
) -> float:
    starts = [comparison.before.started, comparison.after.started]
    starts += [run.card["started"] for run in runs if run is not None]
    starts += [mined["started"]] if mined else []
    return min(starts)
