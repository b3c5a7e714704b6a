"""Two evaluations of the same tasks, set against each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import Results, TaskScores, read_results

MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True)
class Change:
    """A score before and after training, 0 … 1, and BM25's where it was measured."""

    before: float
    after: float
    bm25: float | None

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
        change: nDCG@10.
    """

    kind: str
    query_language: str | None
    corpus_language: str | None
    direction: str
    label: str
    zero_shot: bool
    change: Change

    @property
    def name(self) -> str:
        """Its name among all tasks."""
        return "all" if self.kind == "all" else f"{self.query_language} → {self.corpus_language}"


@dataclass(frozen=True, slots=True)
class Block:
    """The tasks of one direction, and their means (None over no tasks)."""

    name: str
    trained: tuple[TaskChange, ...]
    zero_shot: tuple[TaskChange, ...]
    mean: Change | None
    zero_shot_mean: Change | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that two evaluations say about each other.

    Attributes:
        before: the evaluation before training.
        after: the one after it.
        trained: the languages trained on; None where that is not known: every language counts then.
        tasks: in the evaluations' order.
    """

    before: Results
    after: Results
    trained: frozenset[str] | None
    tasks: tuple[TaskChange, ...]

    @property
    def pivot(self) -> str | None:
        """The language that cross-lingual tasks lead to and start from."""
        return self.after.settings.get("pivot")

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The tasks by direction."""
        names = dict.fromkeys(task.direction for task in self.tasks)
        return tuple(_block(name, [task for task in self.tasks if task.direction == name]) for name in names)

    @property
    def worse(self) -> tuple[TaskChange, ...]:
        """Tasks that lost, the greatest loss first."""
        lost = (task for task in self.tasks if task.change.delta < 0)
        return tuple(sorted(lost, key=lambda task: task.change.delta))

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

    def mean(self, kind: str, *, zero_shot: bool = False) -> Change | None:
        """The unweighted mean over the tasks of a kind; None where there are none."""
        return mean(t.change for t in self.tasks if t.kind == kind and t.zero_shot == zero_shot)


def mean(changes: Iterable[Change]) -> Change | None:
    """The unweighted mean; BM25's only where every task has it, else it would be of other tasks."""
    found = list(changes)
    if not found:
        return None
    lexical = [change.bm25 for change in found if change.bm25 is not None]
    return Change(
        before=_mean([change.before for change in found]),
        after=_mean([change.after for change in found]),
        bm25=_mean(lexical) if len(lexical) == len(found) else None,
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def compare(before: Path, after: Path, trained: frozenset[str] | None) -> Comparison:
    """Reads two evaluations and pairs their tasks.

    Args:
        before: a folder that ``evaluate`` wrote for the untrained model.
        after: one for the trained model, on the same data.
        trained: the languages trained on, or None where that is not known.

    Raises:
        UserError: a folder is not a finished evaluation, or the two differ in data, split, pivot or tasks.
    """
    earlier, later = read_results(before), read_results(after)
    if Path(earlier.data) != Path(later.data):
        raise _different(before, after, "data", earlier.data, later.data)
    for setting in ("split", "pivot"):
        if earlier.settings.get(setting) != later.settings.get(setting):
            raise _different(
                before, after, setting, earlier.settings.get(setting), later.settings.get(setting)
            )
    pairs = _pair_tasks(before, after, earlier, later)
    pivot = later.settings.get("pivot")
    return Comparison(
        earlier, later, trained, tuple(_task_change(old, new, pivot, trained) for old, new in pairs)
    )


def _pair_tasks(
    before: Path, after: Path, earlier: Results, later: Results
) -> list[tuple[TaskScores, TaskScores]]:
    old, new = ({_key(task): task for task in results.tasks} for results in (earlier, later))
    for folder, missing in ((after, old.keys() - new.keys()), (before, new.keys() - old.keys())):
        if missing:
            names = ", ".join(sorted(f"{query} → {corpus}" for _, query, corpus in missing))
            raise UserError(f"{folder} lacks tasks that the other evaluation has ({names}); {_REMEDY}")
    for key, task in old.items():
        sizes = [(t.queries, t.documents) for t in (task, new[key])]
        if sizes[0] != sizes[1]:
            shown = [f"{queries} queries and {documents} documents" for queries, documents in sizes]
            raise _different(before, after, f"task {key[1]} → {key[2]}", *shown)
    return [(old[key], new[key]) for key in new]


_REMEDY = "evaluate both models on the same data with the same options"


def _key(task: TaskScores) -> tuple[str, str | None, str | None]:
    return task.kind, task.query_language, task.corpus_language


def _different(before: Path, after: Path, what: str, old: object, new: object) -> UserError:
    return UserError(f"{what} differs: {old} in {before}, {new} in {after}; {_REMEDY}")


def _task_change(
    old: TaskScores, new: TaskScores, pivot: str | None, trained: frozenset[str] | None
) -> TaskChange:
    query, corpus = new.query_language, new.corpus_language
    direction, label = new.kind, query or "all"
    tested = {query, corpus}
    if new.kind == "cross_lingual":
        tested -= {pivot}
        direction, label = "cross-lingual", f"{query} → {corpus}"
        if corpus == pivot:
            direction, label = f"X → {pivot}", str(query)
        elif query == pivot:
            direction, label = f"{pivot} → X", str(corpus)
    bm25 = old.bm25 or new.bm25
    return TaskChange(
        kind=new.kind,
        query_language=query,
        corpus_language=corpus,
        direction=direction,
        label=label,
        zero_shot=trained is not None and new.kind != "all" and not tested <= trained,
        change=Change(old.scores[MEASURE], new.scores[MEASURE], bm25[MEASURE] if bm25 else None),
    )


def _block(name: str, tasks: list[TaskChange]) -> Block:
    trained = tuple(task for task in tasks if not task.zero_shot)
    zero_shot = tuple(task for task in tasks if task.zero_shot)
    means = [mean(task.change for task in part) for part in (trained, zero_shot)]
    return Block(name, trained, zero_shot, *means)
