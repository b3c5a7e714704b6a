"""The evaluations that a card shows: read before anything slow begins, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.alike import check_alike
from lit_retrofit.evaluation.results import Results, TaskScores, read_results


@dataclass(frozen=True)
class Measure:
    """What the card tells of an evaluation.

    Attributes:
        name: of the measure, in metrics.json and in the table.
        metric: its name in mteb's own cards.
        task: the kind of task, as they name it.
        rows: heading of the tasks.
    """

    name: str
    metric: str
    task: str
    rows: str


_RETRIEVAL = Measure("nDCG@10", "ndcg_at_10", "Retrieval", "queries → corpus")
_CLUSTERING = Measure("V-measure", "v_measure", "Clustering", "language of the texts")


def measure_of(results: Results) -> Measure:
    """An evaluation is of retrieval (reranking is measured alike) or of clustering."""
    return _CLUSTERING if results.tasks[0].kind == "clustering" else _RETRIEVAL


def read_evaluations(before: Path | None, after: Path | None) -> dict[str, Results]:
    """Reads ``before`` and ``after``, as far as they are given.

    Raises:
        UserError: a folder is no finished evaluation, it lacks the measure of the card, or the two did not
            measure the same; see `check_alike`.
    """
    given = {"before": before, "after": after}
    found = {name: _read(folder) for name, folder in given.items() if folder is not None}
    if len(found) == 2:
        check_alike(found["before"], found["after"], (before, after))
    return found


def _read(folder: Path) -> Results:
    results = read_results(folder)
    if not results.tasks:
        raise UserError(f"{folder / 'metrics.json'} has no tasks; evaluate again, or leave it out")
    name = measure_of(results).name
    for task in results.tasks:
        if name not in task.scores:
            raise UserError(
                f"{folder / 'metrics.json'}: the task {label(task)} has no {name}, which the card shows; "
                "evaluate again with --overwrite, or leave it out"
            )
    return results


def label(task: TaskScores) -> str:
    """A task's name in tables."""
    if task.query_language is None:
        return "all"
    if task.kind == "clustering":
        return task.query_language
    return f"{task.query_language} → {task.corpus_language}"


def table(evaluations: dict[str, Results]) -> str:
    """The section with the score of every task.

    Args:
        evaluations: by the name of their column; at least one, and all of the same tasks.
    """
    first = next(iter(evaluations.values()))
    measure = measure_of(first)
    columns = [
        {label(task): task.scores[measure.name] for task in results.tasks} for results in evaluations.values()
    ]
    lines = [
        f"## {measure.name} on {first.data}\n",
        f"| {measure.rows} | {' | '.join(evaluations)} |",
        "|---" * (1 + len(evaluations)) + "|",
    ]
    for task in columns[0]:
        cells = " | ".join(f"{scores[task]:.4f}" for scores in columns)
        lines.append(f"| {task} | {cells} |")
    return "\n".join(lines) + "\n"
