"""nDCG@10 of arms: means over seeds, and how far each is from the baseline, query by query."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.evaluation.results import QueryResult, read_queries
from lit_retrofit.evaluation.significance import interval

Task = tuple[str, "str | None", "str | None"]
Queries = dict[Task, dict[str, float]]


@dataclass(frozen=True)
class Score:
    """An arm in one column.

    Attributes:
        mean: nDCG@10, the mean over seeds of the mean over tasks of the mean over queries.
        per_seed: the same of each seed.
        difference: mean − the baseline's; None for the baseline itself.
        low: lower end of its 95 % bootstrap interval over queries (each the mean over its seeds).
        high: its upper end.
    """

    mean: float
    per_seed: tuple[float, ...]
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds; None of one seed."""
        return statistics.stdev(self.per_seed) if len(self.per_seed) > 1 else None


def read_columns(scores: dict[str, Path], unseen: Sequence[str]) -> dict[str, Queries]:
    """Column → task → query → nDCG@10, out of the folders of `evaluate`.

    Monolingual and cross-lingual tasks of a test set are columns of their own; so are its monolingual tasks
    in languages that no arm trains on, where the ablation names some.
    """
    found: dict[str, Queries] = {}
    for test_set, folder in scores.items():
        add_columns(found, test_set, read_queries(folder), unseen)
    return found


def add_columns(
    found: dict[str, Queries], test_set: str, queries: Iterable[QueryResult], unseen: Sequence[str] = ()
) -> None:
    """Puts the queries of a test set into their columns; see `read_columns`."""
    for query in queries:
        columns = [f"{test_set} {query.kind.replace('_', '-')}"]
        if query.kind == "monolingual" and query.query_language in unseen:
            columns.append(f"{test_set} unseen")
        for column in columns:
            task = (query.kind, query.query_language, query.corpus_language)
            found.setdefault(column, {}).setdefault(task, {})[query.query_id] = query.ndcg


def compare(arm: Sequence[Queries], baseline: Sequence[Queries] | None) -> Score:
    """Scores an arm's seeds in one column, against those of the baseline."""
    per_seed = tuple(_mean(_arrays([queries])) for queries in arm)
    mean = statistics.mean(per_seed)
    if baseline is None:
        return Score(mean, per_seed)
    differences = [mine - theirs for mine, theirs in zip(_arrays(arm), _arrays(baseline), strict=True)]
    low, high = interval(differences)
    return Score(mean, per_seed, _mean(differences), low, high)


def _arrays(seeds: Sequence[Queries]) -> list[NDArray[np.float64]]:
    """(queries,) for each task: the mean over seeds. Tasks and queries are sorted."""
    return [
        np.array([np.mean([queries[task][query] for queries in seeds]) for query in sorted(seeds[0][task])])
        for task in sorted(seeds[0], key=str)
    ]


def _mean(tasks: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([values.mean() for values in tasks]))
