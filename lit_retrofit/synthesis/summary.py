"""What a synthesis did: the counts, the cost and a few examples, to file and terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_retrofit.data.records import Record
from lit_retrofit.data.shown_text import shown
from lit_retrofit.synthesis.filters import Drops

FORMAT = 1
_EXAMPLES = 2  # per language and template
_SHOWN = 12
_EXCERPT = 120


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a model. Tokens and cost are of the whole log: of earlier runs too.

    Attributes:
        requests: answered in this run.
        from_log: answers taken from earlier runs.
        retried: requests sent again after a fault.
        bad_answers: unusable ones by reason.
        failed: requests without an answer by reason; the same command with --overwrite asks them again.
        beyond_limit: requests not sent for the spending limit.
        input_tokens: of all answers in the log, and at most of requests whose answer never came.
        output_tokens: likewise.
        cost: of these tokens, at the given prices.
        log: the file of raw answers.
    """

    requests: int
    from_log: int
    retried: int
    bad_answers: Mapping[str, int]
    failed: Mapping[str, int]
    beyond_limit: int
    input_tokens: int
    output_tokens: int
    cost: float
    log: str


@dataclass(frozen=True, slots=True)
class SynthesisSummary:
    """The result of `synthesize`.

    Attributes:
        seconds: wall time.
        generator: rules, endpoint or local.
        model: its name.
        documents: read, by language.
        left_out: documents by reason; those of crosslingual for that template alone.
        written: drafts that the generator made.
        dropped: by filter, with the first queries that it took away.
        kept: records, by language of the query.
        templates: records, by template.
        negatives: written as hard negatives and kept.
        asked: None where no model was asked.
        examples: records to read.
        output: the file of records.
    """

    seconds: float
    generator: str
    model: str
    documents: Mapping[str, int]
    left_out: Mapping[str, int]
    written: int
    dropped: Mapping[str, Drops]
    kept: Mapping[str, int]
    templates: Mapping[str, int]
    negatives: int
    asked: Asked | None
    examples: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain types, with the format's number."""
        return {"format": FORMAT, **asdict(self)}


def counts_of(values: Sequence[str]) -> dict[str, int]:
    """How often each occurs, in alphabetical order."""
    return dict(sorted(Counter(values).items()))


def pick_examples(records: Sequence[Record]) -> tuple[dict[str, str], ...]:
    """The first records of each language and template."""
    seen: Counter[tuple[str | None, str | None]] = Counter()
    picked = []
    for record in records:
        seen[record.language, record.task] += 1
        if seen[record.language, record.task] <= _EXAMPLES:
            picked.append(
                {
                    "language": shown(record.language or ""),
                    "template": record.task or "",
                    "query": shown(record.query),
                    "document": shown(record.positives[0].text, _EXCERPT),
                }
            )
    return tuple(picked)


def show(summary: SynthesisSummary, console: Console) -> None:
    """Prints the counts and the examples."""
    console.print(_counts(summary), _examples(summary.examples))
    total = sum(summary.kept.values())
    console.print(f"{summary.output}: {total} records in {summary.seconds:.0f} s", soft_wrap=True)


def _counts(summary: SynthesisSummary) -> Table:
    table = Table(title=f"Synthetic records by {escape(summary.model)}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("documents", str(sum(summary.documents.values())))
    for reason, count in summary.left_out.items():
        table.add_row(f"  left out: {escape(reason)}", str(count))
    if summary.asked:
        _add_asked(table, summary.asked)
    table.add_row("queries written", str(summary.written))
    for name, drops in summary.dropped.items():
        table.add_row(f"  dropped: {name}", str(drops.count))
    table.add_row("records kept", str(sum(summary.kept.values())))
    for language, count in summary.kept.items():
        table.add_row(f"  {escape(shown(language))}", str(count))
    if summary.negatives:
        table.add_row("written hard negatives", str(summary.negatives))
    return table


def _add_asked(table: Table, asked: Asked) -> None:
    table.add_row("answers of this run", str(asked.requests))
    table.add_row("answers kept from earlier runs", str(asked.from_log))
    table.add_row("requests sent again", str(asked.retried))
    for reason, count in asked.bad_answers.items():
        table.add_row(f"  unusable answer: {reason}", str(count))
    for reason, count in asked.failed.items():
        table.add_row(f"  no answer: {reason}", str(count))
    if asked.beyond_limit:
        table.add_row("  not sent: spending limit", str(asked.beyond_limit))
    table.add_row("tokens read / written, in all", f"{asked.input_tokens} / {asked.output_tokens}")
    table.add_row("cost, in all", f"{asked.cost:.4f}")


def _examples(examples: Sequence[Mapping[str, str]]) -> Table:
    table = Table(title="Examples", show_lines=True)
    for column in ("language", "template", "query", "document"):
        table.add_column(column)
    for example in examples[:_SHOWN]:
        table.add_row(*(escape(example[name]) for name in example))
    return table
