"""Two evaluations of the same tasks, set against each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lit_retrofit.evaluation.results import Results
from lit_retrofit.evaluation.significance import adjust
from lit_retrofit.report.certainty import Certainty, Key, Sure
from lit_retrofit.report.pairs import QueryPair

MEASURE = "nDCG@10"
SIDES = ("before", "after")
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """A score before and after training, 0 … 1.

    Attributes:
        before: the score.
        after: the score.
        bm25: BM25's, where it was measured.
        sure: the intervals, where the evaluations have the scores of single queries.
    """

    before: float
    after: float
    bm25: float | None
    sure: Sure | None = None

    @property
    def delta(self) -> float:
        """What was won; negative where it got worse."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One language task.

    Attributes:
        kind: monolingual, cross_lingual or all.
        query_language: None for ``all``.
        corpus_language: None for ``all``.
        direction: the block it stands in: monolingual, "X → en", "en → X", cross-lingual or all.
        label: its name inside that block.
        zero_shot: its language (the pivot of a cross-lingual task aside) was never trained on.
        queries: measured ones.
        documents: in its corpus.
        change: nDCG@10.
    """

    kind: str
    query_language: str | None
    corpus_language: str | None
    direction: str
    label: str
    zero_shot: bool
    queries: int
    documents: int
    change: Change

    @property
    def name(self) -> str:
        """Its name among all tasks."""
        return "all" if self.kind == "all" else f"{self.query_language} → {self.corpus_language}"

    @property
    def key(self) -> Key:
        """What the evaluations know it by."""
        return self.kind, self.query_language, self.corpus_language


@dataclass(frozen=True, slots=True)
class Block:
    """The tasks of one direction, and their means (None over no tasks)."""

    name: str
    trained: tuple[TaskChange, ...]
    zero_shot: tuple[TaskChange, ...]
    mean: Change | None
    zero_shot_mean: Change | None


@dataclass(frozen=True)
class Comparison:
    """Everything that two evaluations say about each other.

    Attributes:
        before: the evaluation before training.
        after: the one after it.
        trained: the languages trained on; None where that is not known: every language counts then.
        tasks: in the evaluations' order.
        pairs: the queries of all tasks.
        certainty: what the queries say of tasks and means.
        names: what the two sides are called.
    """

    before: Results
    after: Results
    trained: frozenset[str] | None
    tasks: tuple[TaskChange, ...]
    pairs: tuple[QueryPair, ...]
    certainty: Certainty
    names: tuple[str, str] = SIDES

    @property
    def pivot(self) -> str | None:
        """The language that cross-lingual tasks lead to and start from."""
        return self.after.settings.get("pivot")

    @property
    def of_one_model(self) -> bool:
        """Whether the sides are one model before and after training, not two rivals."""
        return self.names == SIDES

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The tasks by direction."""
        names = dict.fromkeys(task.direction for task in self.tasks)
        return tuple(self._block(name) for name in names)

    def _block(self, name: str) -> Block:
        parts = [
            tuple(task for task in self.tasks if task.direction == name and task.zero_shot == zero_shot)
            for zero_shot in (False, True)
        ]
        trained, zero_shot = parts
        return Block(name, trained, zero_shot, self._mean(trained), self._mean(zero_shot))

    @property
    def worse(self) -> tuple[TaskChange, ...]:
        """Tasks that lost, the greatest loss first."""
        lost = (task for task in self.tasks if task.change.delta < 0)
        return tuple(sorted(lost, key=lambda task: task.change.delta))

    @property
    def better(self) -> tuple[TaskChange, ...]:
        """Tasks that gained, the greatest gain first."""
        gained = (task for task in self.tasks if task.change.delta > 0)
        return tuple(sorted(gained, key=lambda task: -task.change.delta))

    @property
    def certain_better(self) -> tuple[TaskChange, ...]:
        """Tasks that gained beyond chance."""
        return tuple(task for task in self.better if task.key in self.certain)

    @property
    def certain_worse(self) -> tuple[TaskChange, ...]:
        """Tasks that lost beyond chance."""
        return tuple(task for task in self.worse if task.key in self.certain)

    @property
    def certain(self) -> frozenset[Key]:
        """Tasks that differ at the 5 % level, the p-values adjusted for the number of tasks."""
        sure = [(task.key, task.change.sure.difference.p) for task in self.tasks if task.change.sure]
        adjusted = adjust([p for _, p in sure])
        return frozenset(key for (key, _), p in zip(sure, adjusted, strict=True) if p <= _LEVEL)

    @property
    def below_bm25(self) -> tuple[TaskChange, ...]:
        """Tasks in which BM25 is better than the trained model."""
        return tuple(
            task
            for task in self.tasks
            if task.change.bm25 is not None and task.change.after < task.change.bm25
        )

    @property
    def has_bm25(self) -> bool:
        """Whether BM25 was measured in any task."""
        return any(task.change.bm25 is not None for task in self.tasks)

    @property
    def without_interval(self) -> int:
        """Tasks of which no scores of single queries are there."""
        return sum(task.change.sure is None for task in self.tasks)

    @property
    def dimensions(self) -> tuple[int | None, int | None]:
        """Numbers in an embedding of either side, where the evaluations tell."""
        found = [(side.cost or {}).get("dimension") for side in (self.before, self.after)]
        return found[0], found[1]

    def mean(self, kind: str, *, zero_shot: bool = False) -> Change | None:
        """The unweighted mean over the tasks of a kind; None where there are none."""
        return self._mean([task for task in self.tasks if task.kind == kind and task.zero_shot == zero_shot])

    def _mean(self, tasks: Sequence[TaskChange]) -> Change | None:
        return mean((task.change for task in tasks), self.certainty.of([task.key for task in tasks]))


def mean(changes: Iterable[Change], sure: Sure | None = None) -> Change | None:
    """The unweighted mean; BM25's only where every task has it, else it would be of other tasks.

    Args:
        changes: of tasks.
        sure: the intervals of their mean.
    """
    found = list(changes)
    if not found:
        return None
    lexical = [change.bm25 for change in found if change.bm25 is not None]
    return Change(
        before=_mean([change.before for change in found]),
        after=_mean([change.after for change in found]),
        bm25=_mean(lexical) if len(lexical) == len(found) else None,
        sure=sure,
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
