"""What a cleaning run did: counts and examples of each rule, to file and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_retrofit.cleaning.options import Rules
from lit_retrofit.cleaning.verdicts import RULES

FORMAT = 1
EXAMPLES = 5
EXCERPT = 200
_SHOWN = 1  # examples of a rule in the terminal
_LANGUAGES = 12  # rows of the terminal's table of languages


@dataclass(frozen=True, slots=True)
class Example:
    """A record that a rule dropped.

    Attributes:
        place: its source and line.
        id: the record's.
        query: its beginning.
        positive: that of the first positive.
        detail: what the rule found.
    """

    place: str
    id: str
    query: str
    positive: str
    detail: str


@dataclass(frozen=True, slots=True)
class CleaningSummary:
    """The result of `clean`: ``read`` is ``kept`` and all that is dropped.

    Attributes:
        started: Unix time, seconds.
        seconds: wall time, of this process: an interrupted run's earlier part is not in it.
        data: the sources.
        output: the file of records.
        dropped_file: the file of dropped records, where the user wants one.
        rules: the options.
        read: records read.
        kept: records written.
        dropped: how many each rule dropped; a record counts for the first rule that objects.
        skipped: broken rows that are no records, for each reason.
        removed_negatives: negatives left out because they equal a positive of their record.
        languages: of each language, records read and kept.
        examples: of each rule that dropped any, the first records.
        evaluation_sets: what leakage was searched against.
        notes: what the user should look at.
    """

    started: float
    seconds: float
    data: tuple[str, ...]
    output: str
    dropped_file: str | None
    rules: Rules
    read: int
    kept: int
    dropped: Mapping[str, int]
    skipped: Mapping[str, int]
    removed_negatives: int
    languages: Mapping[str, tuple[int, int]]
    examples: Mapping[str, tuple[Example, ...]]
    evaluation_sets: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain types, with the format's number."""
        return {"format": FORMAT, **asdict(self)}


def excerpt(text: str) -> str:
    """One short line of a text, without what would disturb a terminal."""
    beginning = text[: 4 * EXCERPT]
    line = " ".join("".join(c if c.isprintable() else " " for c in beginning).split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def show(summary: CleaningSummary, console: Console) -> None:
    """Prints the counts of rules and languages, examples, and what to look at."""
    console.print(_counts(summary))
    if any(summary.dropped.values()):
        console.print(_examples(summary))
    if len(summary.languages) > 1:
        console.print(_languages(summary))
    for line in (*summary.evaluation_sets, *summary.notes):
        console.print(escape(line), highlight=False, soft_wrap=True)
    share = 100 * summary.kept / max(summary.read, 1)
    result = f"{summary.kept} of {summary.read} records ({share:.1f} %) in {summary.seconds:.0f} s"
    console.print(escape(f"{summary.output}: {result}"), highlight=False, soft_wrap=True)


def _counts(summary: CleaningSummary) -> Table:
    table = Table(title="Cleaning")
    table.add_column("rule")
    table.add_column("records", justify="right")
    table.add_column("%", justify="right")
    table.add_column("dropped because")
    for rule, reason in RULES.items():
        count = summary.dropped.get(rule, 0)
        if count:
            table.add_row(rule, str(count), f"{100 * count / summary.read:.2f}", reason)
    table.add_row("kept", str(summary.kept), f"{100 * summary.kept / summary.read:.2f}", "", style="bold")
    for reason, count in summary.skipped.items():
        table.add_row("skipped", str(count), "", escape(reason))
    if summary.removed_negatives:
        reason = "negatives, not records: equal to a positive"
        table.add_row("removed", str(summary.removed_negatives), "", reason)
    return table


def _examples(summary: CleaningSummary) -> Table:
    table = Table(title="Examples", show_lines=True)
    for column in ("rule", "where", "query", "positive"):
        table.add_column(column, overflow="fold")
    for rule, found in summary.examples.items():
        for example in found[:_SHOWN]:
            where = f"{example.place}\n{example.detail}"
            table.add_row(rule, *(escape(text) for text in (where, example.query, example.positive[:100])))
    return table


def _languages(summary: CleaningSummary) -> Table:
    table = Table(title="Languages")
    for column in ("language", "read", "kept", "%"):
        table.add_column(column, justify="left" if column == "language" else "right")
    ordered = sorted(summary.languages.items(), key=lambda item: (-item[1][0], item[0]))
    for name, (read, kept) in ordered[:_LANGUAGES]:
        table.add_row(escape(name), str(read), str(kept), f"{100 * kept / read:.1f}")
    rest = ordered[_LANGUAGES:]
    if rest:
        read, kept = (sum(counts[i] for _, counts in rest) for i in (0, 1))
        table.add_row(f"{len(rest)} others", str(read), str(kept), f"{100 * kept / read:.1f}")
    return table
