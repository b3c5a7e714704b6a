"""Reads two evaluations and pairs their tasks."""

from __future__ import annotations

from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import Results, TaskScores, read_results
from lit_retrofit.report.certainty import Certainty, Key
from lit_retrofit.report.comparison import MEASURE, SIDES, Change, Comparison, TaskChange
from lit_retrofit.report.pairs import pair_queries

_REMEDY = "evaluate both models on the same data with the same options"


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
        UserError: a folder is not a finished evaluation of retrieval, or the two differ in data, split,
            pivot, tasks or queries.
    """
    earlier, later = _read(before), _read(after)
    if Path(earlier.data) != Path(later.data):
        raise _different(before, after, "data", earlier.data, later.data)
    for setting in ("split", "pivot"):
        if earlier.settings.get(setting) != later.settings.get(setting):
            raise _different(
                before, after, setting, earlier.settings.get(setting), later.settings.get(setting)
            )
    tasks = _pair_tasks(before, after, earlier, later)
    pairs = pair_queries(before, after)
    certainty = Certainty(pairs)
    for _, task in tasks:
        lines = certainty.queries(_key(task))
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
        raise UserError(f"{folder / 'metrics.json'} has no tasks; {_REMEDY}")
    for task in results.tasks:
        if MEASURE not in task.scores:
            raise UserError(
                f"{folder / 'metrics.json'}: the task {task.query_language or task.kind} has no {MEASURE}; "
                "a report compares retrieval, so give evaluations of retrieval"
            )
    return results


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
        if not task.queries:
            raise UserError(
                f"{before / 'metrics.json'}: {key[1]} → {key[2]} has no queries, so there is nothing to "
                "compare; leave the language out of the data, and evaluate again"
            )
    return [(old[key], new[key]) for key in new]


def _key(task: TaskScores) -> Key:
    return task.kind, task.query_language, task.corpus_language


def _different(before: Path, after: Path, what: str, old: object, new: object) -> UserError:
    return UserError(f"{what} differs: {old} in {before}, {new} in {after}; {_REMEDY}")


def _task_change(
    old: TaskScores,
    new: TaskScores,
    pivot: str | None,
    trained: frozenset[str] | None,
    certainty: Certainty,
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
        queries=new.queries,
        documents=new.documents,
        change=Change(
            old.scores[MEASURE],
            new.scores[MEASURE],
            bm25[MEASURE] if bm25 else None,
            certainty.of([_key(new)]),
        ),
    )
