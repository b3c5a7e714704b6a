"""Several models on the same queries, side by side: how far apart they are, and how sure that is."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.alike import TaskKey, check_alike, task_label
from lit_retrofit.evaluation.measuring import Measured
from lit_retrofit.evaluation.results import QueryResult, Results, query_results, read_queries, read_results
from lit_retrofit.evaluation.significance import Difference, adjust, interval, paired_difference


@dataclass(frozen=True)
class Side:
    """One model's evaluation.

    Attributes:
        name: for messages and tables.
        results: its scores.
        queries: its nDCG@10 of every query in every task.
    """

    name: str
    results: Results
    queries: tuple[QueryResult, ...]

    @classmethod
    def of(cls, measured: Measured) -> Side:
        """A model that was measured just now."""
        queries = tuple(line for ranking in measured.rankings for line in query_results(ranking))
        return cls(measured.results.model, measured.results, queries)

    @classmethod
    def read(cls, folder: Path) -> Side:
        """One that was measured earlier.

        Raises:
            UserError: the folder is not a finished evaluation.
        """
        return cls(str(folder), read_results(folder), read_queries(folder))


@dataclass(frozen=True, slots=True)
class Row:
    """A task, or the mean over a kind of tasks.

    Attributes:
        label: shown in tables.
        kind: of the task or tasks.
        query_language: None for a mean, and for ``all``.
        corpus_language: likewise.
        score: the model's nDCG@10.
        interval: the 95 % interval of ``score``.
        other: the other model's nDCG@10.
        other_interval: its 95 % interval.
        difference: ``score`` − ``other``.
        adjusted_p: the difference's p-value, adjusted for the number of tasks; of a mean, the p-value itself.
    """

    label: str
    kind: str
    query_language: str | None
    corpus_language: str | None
    score: float
    interval: tuple[float, float]
    other: float
    other_interval: tuple[float, float]
    difference: Difference
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against another one.

    Attributes:
        name: the model.
        other: the one it is compared with.
        tasks: a row for each task.
        means: a row for each kind of several tasks.
        notes: what the reader should know.
    """

    name: str
    other: str
    tasks: tuple[Row, ...]
    means: tuple[Row, ...]
    notes: tuple[str, ...]


def compare_sides(model: Side, other: Side) -> Comparison:
    """Tests on which tasks, and in the mean of which kinds, a model differs from another one.

    Raises:
        UserError: the two were not measured on the same data, tasks and queries; see `check_alike`.
    """
    check_alike(other.results, model.results, (other.name, model.name))
    keys, mine, theirs = _pair(model, other)
    rows = [_row(key, [mine[key]], [theirs[key]], task_label(key)) for key in keys]
    adjusted = adjust([row.difference.p for row in rows])
    tasks = tuple(replace(row, adjusted_p=p) for row, p in zip(rows, adjusted, strict=True))
    means = []
    for kind in dict.fromkeys(key[0] for key in keys):
        alike = [key for key in keys if key[0] == kind]
        if len(alike) > 1:
            label = f"mean, {kind.replace('_', '-')}"
            means.append(
                _row((kind, None, None), [mine[k] for k in alike], [theirs[k] for k in alike], label)
            )
    return Comparison(model.name, other.name, tasks, tuple(means), _notes(model, other))


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Writes a comparison as JSON into a results folder, named after the other model, and tells where."""
    path = _comparison_path(folder, comparison.other)
    with new_text_file(path, overwrite=True) as file:
        json.dump(asdict(comparison), file, ensure_ascii=False, indent=1)
        file.write("\n")
    return path


def _comparison_path(folder: Path, other: str) -> Path:
    """``comparison-runs-before.json`` for runs/before; with a number where that is of another name's."""
    plain = re.sub(r"[^\w.]+", "-", other).strip("-") or "other"
    names = chain([plain], (f"{plain}-{number}" for number in count(2)))
    paths = (folder / f"comparison-{name}.json" for name in names)
    return next(path for path in paths if _compares_with(path) in (None, other))


def _compares_with(path: Path) -> str | None:
    """The other model of an earlier comparison; None where a file is none, and may be replaced."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["other"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pair(
    model: Side, other: Side
) -> tuple[list[TaskKey], dict[TaskKey, NDArray[np.float64]], dict[TaskKey, NDArray[np.float64]]]:
    scores = [_scores(side) for side in (model, other)]
    for side, mine, against in ((other, scores[0], scores[1]), (model, scores[1], scores[0])):
        for key, queries in mine.items():
            missing = queries.keys() - against.get(key, {}).keys()
            if missing:
                raise UserError(
                    f"{side.name} has no score of query '{min(missing)}' in the task {task_label(key)} "
                    f"({len(missing)} queries differ); evaluate all models on the same data and options"
                )
    keys = list(scores[0])
    if not keys:
        raise UserError(f"{model.name} has no scores of single queries; only retrieval can be compared")
    ordered = [
        {key: np.array([found[key][query] for query in scores[0][key]]) for key in keys} for found in scores
    ]
    return keys, ordered[0], ordered[1]


def _scores(side: Side) -> dict[TaskKey, dict[str, float]]:
    found: dict[TaskKey, dict[str, float]] = {}
    for line in side.queries:
        key = (line.kind, line.query_language, line.corpus_language)
        found.setdefault(key, {})[line.query_id] = line.ndcg
    return found


def _row(key: TaskKey, mine: list[NDArray[np.float64]], theirs: list[NDArray[np.float64]], label: str) -> Row:
    difference = paired_difference(theirs, mine)
    return Row(
        label,
        *key,
        score=_mean(mine),
        interval=interval(mine),
        other=_mean(theirs),
        other_interval=interval(theirs),
        difference=difference,
        adjusted_p=difference.p,
    )


def _mean(tasks: list[NDArray[np.float64]]) -> float:
    return float(np.mean([values.mean() for values in tasks]))


def _notes(model: Side, other: Side) -> tuple[str, ...]:
    dimensions = [(side.results.cost or {}).get("dimension") for side in (model, other)]
    if None not in dimensions and dimensions[0] != dimensions[1]:
        return (
            f"embeddings have {dimensions[0]} numbers in {model.name} and {dimensions[1]} in {other.name}: "
            "the larger index may be what makes the difference (--variants 256 measures both alike)",
        )
    return ()
