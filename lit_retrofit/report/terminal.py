"""The table at the end of a run: before, after, change and BM25 of each language."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.report.comparison import Block, Change, Comparison
from lit_retrofit.report.numbers import delta, score

ZERO_SHOT = "*"
_MEAN = "mean"
Rows = dict[str, "Change | None"]


def show(comparison: Comparison, console: Console) -> None:
    """Prints the directions side by side where the console is wide enough, else one below the other.

    Args:
        comparison: of two evaluations.
        console: where to print.
    """
    columns = {block.name: _rows(block) for block in comparison.blocks}
    bm25 = comparison.has_bm25
    console.print(Text(_heading(comparison), style="bold"), soft_wrap=True)
    together = _side_by_side(columns, comparison.names, bm25)
    # Without a pivot the rows of one direction are pairs of languages: nothing to line up.
    if comparison.pivot is not None and _width(together, console) <= console.width:
        console.print(together)
    else:
        for name, rows in columns.items():
            console.print(_table(name, rows, list(rows), comparison.names, bm25, labels=True))
    if any(block.zero_shot for block in comparison.blocks):
        console.print(f"{ZERO_SHOT} zero-shot: a language never trained on", markup=False, highlight=False)


def _heading(comparison: Comparison) -> str:
    if comparison.of_one_model:
        return f"nDCG@10 on {comparison.after.data}, before and after training"
    models = (comparison.before.model, comparison.after.model)
    sides = ", ".join(f"{name}: {model}" for name, model in zip(comparison.names, models, strict=True))
    return f"nDCG@10 on {comparison.after.data}, {sides}"


def _width(table: Table, console: Console) -> int:
    """What the table takes where nothing is cut."""
    return console.measure(table, options=console.options.update(width=1000)).maximum


def _rows(block: Block) -> Rows:
    """Trained languages, their mean, zero-shot languages, their mean."""
    rows: Rows = {task.label: task.change for task in block.trained}
    if block.trained:
        rows[_MEAN] = block.mean
    rows |= {task.label + ZERO_SHOT: task.change for task in block.zero_shot}
    if block.zero_shot:
        rows[_MEAN + ZERO_SHOT] = block.zero_shot_mean
    return rows


def _side_by_side(columns: dict[str, Rows], sides: tuple[str, str], bm25: bool) -> Table:
    labels = _in_order(label for rows in columns.values() for label in rows)
    grid = Table.grid(padding=(0, 2, 0, 0))
    tables = [
        _table(name, rows, labels, sides, bm25, labels=number == 0)
        for number, (name, rows) in enumerate(columns.items())
    ]
    grid.add_row(*tables)
    return grid


def _in_order(labels: Iterable[str]) -> list[str]:
    """Each label once, in the order of `_rows`; a direction may lack languages that another has."""
    return sorted(
        dict.fromkeys(labels), key=lambda label: (label.endswith(ZERO_SHOT), label.startswith(_MEAN))
    )


def _table(
    name: str, rows: Rows, order: list[str], sides: tuple[str, str], bm25: bool, *, labels: bool
) -> Table:
    table = Table(title=Text(name), box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    if labels:
        table.add_column("", no_wrap=True)
    for heading in (*sides, "Δ", *(["BM25"] if bm25 else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for label in order:
        cells = _cells(rows.get(label), bm25)
        mean = label.removesuffix(ZERO_SHOT) == _MEAN
        table.add_row(
            *([Text(label)] if labels else []),
            *cells,
            style="bold" if mean else "",
            end_section=label == _MEAN,
        )
    return table


def _cells(change: Change | None, bm25: bool) -> list[Text]:
    if change is None:
        return [Text("")] * (3 + bm25)
    colour = "green" if change.delta > 0 else "red" if change.delta < 0 else ""
    cells = [
        _short(change.before),
        _short(change.after),
        Text(delta(change.delta).replace("0.", ".", 1), colour),
    ]
    return [*cells, _short(change.bm25)] if bm25 else cells


def _short(value: float | None) -> Text:
    """Without the leading zero: twelve columns fit into 80 characters."""
    return Text(score(value).removeprefix("0"))
