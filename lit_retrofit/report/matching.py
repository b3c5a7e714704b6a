"""Reads two evaluations and pairs their tasks."""

from __future__ import annotations

from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.alike import REMEDY, check_alike, task_key, task_label
from lit_retrofit.evaluation.languages import never_trained_on
from lit_retrofit.evaluation.results import Results, TaskScores, read_results
from lit_retrofit.report.certainty import Certainty
from lit_retrofit.report.comparison import MEASURE, SIDES, Change, Comparison, TaskChange
from lit_retrofit.report.pairs import pair_queries


def compare(
    before: Path, after: Path, trained: frozenset[str] | None, names: tuple[str, str] = SIDES
) -> Comparison:
    """Reads two evaluations and pairs their tasks.

    Args:
        before: a folder that ``evaluate`` wrote for the untrained model.
        after: one for the trained model, on the same data.
        trained: the languages trained on, or None where that is not known.
        names: what to call the two sides.

    Raises:
        UserError: a folder is not a finished evaluation of retrieval, or the two were not measured on the
            same data, tasks and queries; see `check_alike`.
    """
    earlier, later = _read(before), _read(after)
    check_alike(earlier, later, (before, after))
    tasks = _pair_tasks(before, earlier, later)
    pairs = pair_queries(before, after)
    certainty = Certainty(pairs)
    for _, task in tasks:
        lines = certainty.queries(task_key(task))
        if lines not in (0, task.queries):
            raise UserError(
                f"{after / 'queries.jsonl'} has {lines} of the {task.queries} queries of "
                f"{task.query_language} → {task.corpus_language}; evaluate again with --overwrite"
            )
    pivot = later.settings.get("pivot")
    changes = tuple(_task_change(old, new, pivot, trained, certainty) for old, new in tasks)
    return Comparison(earlier, later, trained, changes, pairs, certainty, names)


def _read(folder: Path) -> Results:
    results = read_results(folder)
    if not results.tasks:
        raise UserError(f"{folder / 'metrics.json'} has no tasks; {REMEDY}")
    for task in results.tasks:
        if MEASURE not in task.scores:
            raise UserError(
                f"{folder / 'metrics.json'}: the task {task.query_language or task.kind} has no {MEASURE}; "
                "a report compares retrieval, so give evaluations of retrieval"
            )
    return results


def _pair_tasks(before: Path, earlier: Results, later: Results) -> list[tuple[TaskScores, TaskScores]]:
    old = {task_key(task): task for task in earlier.tasks}
    for key, task in old.items():
        if not task.queries:
            raise UserError(
                f"{before / 'metrics.json'}: {task_label(key)} has no queries, so there is nothing to "
                "compare; leave the language out of the data, and evaluate again"
            )
    return [(old[task_key(task)], task) for task in later.tasks]


def _task_change(
    old: TaskScores,
    new: TaskScores,
    pivot: str | None,
    trained: frozenset[str] | None,
    certainty: Certainty,
) -> TaskChange:
    query, corpus = new.query_language, new.corpus_language
    direction, label = new.kind, query or "all"
    if new.kind == "cross_lingual":
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
        zero_shot=never_trained_on(new, trained, pivot),
        queries=new.queries,
        documents=new.documents,
        change=Change(
            old.scores[MEASURE],
            new.scores[MEASURE],
            bm25[MEASURE] if bm25 else None,
            certainty.of([task_key(new)]),
        ),
    )
