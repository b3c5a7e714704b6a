"""An inspection in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.inspection.summary import GroupSummary, Inspection, LanguageRow, ShownRecord
from lit_retrofit.inspection.wording import facts, few, number, percent, similarity

_MOST_LANGUAGES = 30


def show(found: Inspection, console: Console) -> None:
    """Prints the whole of it, source by source.

    Args:
        found: what to print.
        console: where to print.
    """
    _line(console, f"{found.data}: {found.records:,} records", "bold")
    for note in notes(found):
        _line(console, note)
    for group in found.groups:
        _show_group(group, found, console)


def notes(found: Inspection) -> list[str]:
    """What a reader must know about the whole to read the figures rightly."""
    lines = []
    if not found.complete:
        lines.append("not read to the end: counts are of the rows that were read (raise --scan)")
    skipped = sum(found.skipped.values())
    if skipped:
        lines.append(f"{skipped:,} rows are no valid record: {few(found.skipped)}")
        lines += [f"for instance {example}" for example in found.skipped_examples[:2]]
    if found.limits is not None:
        limits = [f"{role} {tokens:,} tokens ({source})" for role, (tokens, source) in found.limits.items()]
        lines.append(f"limits: {', '.join(limits)}")
    if found.model is None:
        lines.append("no model given: lengths are in characters, and nothing is scored (give --model)")
    return lines


def _show_group(group: GroupSummary, found: Inspection, console: Console) -> None:
    console.print()
    console.rule(Text(f"{group.name}: {group.records:,} records", style="bold"), align="left")
    console.print(_grid(facts(group)))
    console.print(_languages(group.languages, found))
    console.print(_lengths(group, found.unit))
    if group.oddities:
        _line(console, f"unusual texts: {few(group.oddities)}")
    if group.scores is not None:
        console.print(_similarities(group))
    for suspect in group.shown_suspects[:3]:
        _line(console, f"likely false negative, {suspect.reason}", "yellow")
        _line(console, f"  query     {suspect.query}")
        _line(console, f"  positive  {similarity(suspect.positive_score)}{suspect.positive}")
        _line(console, f"  negative  {similarity(suspect.negative_score)}{suspect.negative}")
    for record in group.examples:
        _record(record, console)


def _grid(values: Mapping[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in values.items():
        grid.add_row(Text(name), Text(value, style="bold"))
    return grid


def _languages(rows: tuple[LanguageRow, ...], found: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = ["language", "records", "scripts of the queries", "query", "document"]
    if found.model is not None:
        headings.append("cut")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in (headings[0], headings[2]) else "right")
    for row in rows[:_MOST_LANGUAGES]:
        cells = [
            row.language, f"{row.records:,}", few(row.scripts), number(row.query_length),
            number(row.document_length), percent(row.over),
        ]  # fmt: skip
        table.add_row(*[Text(cell) for cell in cells[: len(headings)]])
    if len(rows) > _MOST_LANGUAGES:
        table.add_row(Text(f"and {len(rows) - _MOST_LANGUAGES} more"))
    table.caption = Text(f"query and document: median lengths in {found.unit}")
    return table


def _lengths(group: GroupSummary, unit: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (f"length in {unit}", "texts", "median", "95 %", "longest", "limit", "cut"):
        table.add_column(heading, justify="left" if heading.startswith("length") else "right")
    for role, found in group.lengths.items():
        cells = [
            role, f"{found.texts:,}", number(found.median), number(found.p95), number(found.longest),
            number(found.limit), percent(found.over),
        ]  # fmt: skip
        table.add_row(*map(Text, cells))
    return table


def _similarities(group: GroupSummary) -> Table:
    assert group.scores is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (f"similarity by {group.scores.by}", "documents", "5 %", "median", "95 %"):
        table.add_column(Text(heading), justify="left" if heading.startswith("sim") else "right")
    for name, spread in (("positives", group.scores.positives), ("negatives", group.scores.negatives)):
        if spread is not None:
            cells = [f"{spread.count:,}", *(f"{v:.3f}" for v in (spread.p5, spread.median, spread.p95))]
            table.add_row(name, *cells)
    return table


def _record(record: ShownRecord, console: Console) -> None:
    about = " · ".join(part for part in (record.id, record.language, record.task) if part)
    console.print()
    _line(console, about, "dim")
    _line(console, f"  query     {record.query}", "bold")
    for name, documents in (("positive", record.positives), ("negative", record.negatives)):
        for document in documents:
            _line(console, f"  {name}  {similarity(document.score)}{document.text}")
    if record.more:
        _line(console, f"  documents not shown: {record.more:,}", "dim")


def _line(console: Console, text: str, style: str = "") -> None:
    """A line whatever its characters: nothing of a text is markup."""
    console.print(Text(text, style=style), highlight=False)
