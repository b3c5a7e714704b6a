"""The tables that ``evaluate`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.evaluation.comparing import Comparison, Row
from lit_retrofit.evaluation.languages import group_means
from lit_retrofit.evaluation.measures import Scores, means_by_kind
from lit_retrofit.evaluation.results import Results, TaskScores


def show_results(results: Results, console: Console, notes: Sequence[str] = ()) -> None:
    """Prints the tasks, a block for each direction with its mean, and what was left out.

    "left out" counts queries without a relevant document in the corpus that the task searches.

    Args:
        results: an evaluation.
        console: where to print.
        notes: sentences to print below the table.
    """
    # Narrow enough for 80 columns.
    table = _table(f"{results.model} on {results.data}", "queries → corpus")
    clusters = results.tasks[0].kind == "clustering"
    counts = ("texts", "labels") if clusters else ("queries", "left\nout", "docs")
    measures = list(results.tasks[0].scores)
    bm25 = ["BM25\nnDCG@10"] if results.bm25_means else []
    for heading in (*counts, *measures, *bm25):
        table.add_column(heading, justify="right")
    blocks: dict[str, list[TaskScores]] = {}
    for task in results.tasks:
        blocks.setdefault(_direction(task, results.settings.get("pivot")), []).append(task)
    blank = [""] * len(counts)
    for direction, tasks in blocks.items():
        for task in tasks:
            left_out = () if clusters else (task.left_out_queries,)
            numbers = (task.queries, *left_out, task.documents)
            table.add_row(Text(_label(task)), *map(str, numbers), *_cells(task.scores, task.bm25))
        if direction != "all":
            _add_mean(table, direction, tasks, blank)
    if len([name for name in blocks if "→" in name]) > 1:
        _add_mean(
            table, "cross-lingual", [task for task in results.tasks if task.kind == "cross_lingual"], blank
        )
    console.print(table)
    if results.tasks[0].variants:
        console.print(_variants_table(results))
    for note in (*_cost_lines(results), *(f"note: {note}" for note in notes)):
        console.print(note, markup=False, highlight=False)


def show_groups(results: Results, by: str, console: Console) -> None:
    """Prints the means of the monolingual tasks over language families or scripts.

    Args:
        results: an evaluation.
        by: ``family`` or ``script``.
        console: where to print.
    """
    found = group_means(results.tasks)
    if not found:
        console.print(f"note: no means by {by}: no language is measured alone", markup=False, highlight=False)
    for kind, groups in found.items():
        table = _table(f"{results.model}, {kind.replace('_', '-')}, by {by}", by)
        measures = list(results.tasks[0].scores)
        for heading in ("tasks", *measures):
            table.add_column(heading, justify="right")
        for name, scores in groups[by].items():
            table.add_row(Text(name), f"{scores['tasks']:g}", *(f"{scores[m]:.4f}" for m in measures))
        console.print(table)


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Prints a row for each task and each mean: both scores, their difference, its interval and p-value."""
    table = _table(f"{comparison.name} against {comparison.other}, nDCG@10", "queries → corpus")
    for heading in ("this", "other", "difference", "95 % interval", "p"):
        table.add_column(heading, justify="right")
    for row in comparison.tasks:
        table.add_row(*_row_cells(row))
    for number, row in enumerate(comparison.means):
        table.add_row(*_row_cells(row), style="bold", end_section=number == len(comparison.means) - 1)
    console.print(table)
    explanation = "p: randomisation test over the queries; * below 0.05"
    if len(comparison.tasks) > 1:
        explanation += f"; of single tasks, adjusted for {len(comparison.tasks)} tests (Benjamini-Hochberg)"
    for note in (explanation, *(f"note: {note}" for note in comparison.notes)):
        console.print(note, markup=False, highlight=False)


def show_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Prints one line for each benchmark and kind of task, and the mean over them.

    Args:
        summary: what `lit_retrofit.evaluation.several.summarise` gives.
        console: where to print.
    """
    table = _table("nDCG@10 of all benchmarks", "benchmark")
    for heading in ("tasks", "nDCG@10"):
        table.add_column(heading, justify="right")
    for entry in summary["benchmarks"]:
        name, kind = entry["benchmark"], entry["kind"]
        label = name if kind == "all" else f"{name}, {kind.replace('_', '-')}"
        table.add_row(Text(label), str(entry["tasks"]), f"{entry['nDCG@10']:.4f}")
    table.add_row("mean", "", f"{summary['mean']:.4f}", style="bold")
    console.print(table)


def _table(title: str, first: str) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    return table


def _row_cells(row: Row) -> list[Text | str]:
    difference = row.difference
    return [
        Text(row.label),
        f"{row.score:.4f}",
        f"{row.other:.4f}",
        f"{difference.mean:+.4f}",
        f"{difference.low:+.4f} … {difference.high:+.4f}",
        f"{row.adjusted_p:.4f}{'*' if row.adjusted_p < 0.05 else ' '}",
    ]


def _cost_lines(results: Results) -> list[str]:
    cost = results.cost or {}
    lines = []
    sizes = cost.get("index_bytes") or {}
    if len(sizes) > 1:
        shown = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())
        lines.append(f"index of {cost['documents']} documents: {shown}")
    if latency := cost.get("latency"):
        lines.append(
            f"one query: embedding {latency['embed_ms_p50']:.1f} ms (95th percentile "
            f"{latency['embed_ms_p95']:.1f}), exact search among {latency['documents']} documents "
            f"{latency['search_ms_p50']:.1f} ms ({latency['search_ms_p95']:.1f})"
        )
    return lines


def _label(task: TaskScores) -> str:
    if task.kind == "clustering":
        return task.query_language or "all"
    return "all" if task.kind == "all" else f"{task.query_language} → {task.corpus_language}"


def _direction(task: TaskScores, pivot: str | None) -> str:
    """The block of the table that a task stands in."""
    if task.kind != "cross_lingual":
        return task.kind
    if task.corpus_language == pivot:
        return f"X → {pivot}"
    return f"{pivot} → X" if task.query_language == pivot else "X → Y"


def _add_mean(table: Table, name: str, tasks: Sequence[TaskScores], blank: Sequence[str]) -> None:
    (mean,) = means_by_kind((name, task.scores) for task in tasks).values()
    bm25 = means_by_kind((name, task.bm25) for task in tasks if task.bm25 is not None).get(name)
    table.add_row(Text(f"mean, {name}"), *blank, *_cells(mean, bm25), style="bold", end_section=True)


def _cells(scores: Scores, bm25: Scores | None) -> list[str]:
    cells = [f"{value:.4f}" for value in scores.values()]
    return [*cells, f"{bm25['nDCG@10']:.4f}"] if bm25 else cells


def _variants_table(results: Results) -> Table:
    """nDCG@10 of the whole index and of the smaller ones, of each task and each kind's mean."""
    table = _table("nDCG@10 of smaller indexes", "queries → corpus")
    for heading in ("whole", *(results.tasks[0].variants or ())):
        table.add_column(heading, justify="right")
    rows = [
        (task.kind, _label(task), {"whole": task.scores["nDCG@10"], **(task.variants or {})})
        for task in results.tasks
    ]
    for _, label, scores in rows:
        table.add_row(Text(label), *_cells(scores, None))
    table.add_section()
    for kind, mean in means_by_kind((kind, scores) for kind, _, scores in rows).items():
        if kind != "all":
            table.add_row(f"mean, {kind.replace('_', '-')}", *_cells(mean, None), style="bold")
    return table
