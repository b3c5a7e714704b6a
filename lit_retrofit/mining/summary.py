"""What a mining run did: the counts, the similarity histogram and a few examples, to file and terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_retrofit.data.records import Record
from lit_retrofit.data.shown_text import shown
from lit_retrofit.mining.rules import DROPS, MiningRules

FORMAT = 1
BINS = 20
EXAMPLES = 5
LISTED = 100
BAR = 24


@dataclass(frozen=True, slots=True)
class Histogram:
    """Similarities in `BINS` bins of equal width.

    Attributes:
        edges: `BINS` + 1 ascending cosines, from the lowest to the highest score seen.
        positives: how many positives fall in each bin.
        negatives: how many chosen negatives do.
    """

    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """The beginnings of a query, its lowest-scoring positive and its highest-scoring negative."""

    query: str
    positive: str
    negative: str
    positive_score: float
    negative_score: float


@dataclass(frozen=True, slots=True)
class RecordCounts:
    """``read`` is ``kept + dropped``.

    Attributes:
        read: records mined for.
        kept: records written.
        dropped: records with too few negatives to be written.
        short: kept records with fewer negatives than asked for.
        skipped: invalid rows of the data and the corpus, passed over where the user allows it.
    """

    read: int
    kept: int
    dropped: int
    short: int
    skipped: int


@dataclass(frozen=True, slots=True)
class TooFew:
    """A record with fewer negatives than asked for; with fewer than the least number it was dropped.

    Attributes:
        id: the record's.
        query: its beginning.
        negatives: how many it has.
    """

    id: str
    query: str
    negatives: int


@dataclass(frozen=True, slots=True)
class MiningSummary:
    """The result of `mine`.

    Attributes:
        started: Unix time, seconds.
        seconds: wall time.
        model: the mining model as the user named it.
        data: the data as the user named it.
        output: the file of records.
        rules: what the negatives satisfy.
        pool: where negatives came from: all, language or positive.
        backend: of the search.
        records: counts of records.
        queries: different queries searched for.
        documents: different documents searched.
        merged_documents: ids left out because another one names the same text.
        candidates: how many of the plain nearest documents each rule took away, see `count_drops`.
        negatives: written, over all records.
        replaced_negatives: negatives that the records had before; they were in the pool, too.
        miners: what ranked the documents; the rankings of several were fused.
        scored_by: what gave the scores.
        examined: candidates of each query, at most.
        recall: for each miner with an index, the share that it finds of the exact search's candidates.
        too_few: the first `LISTED` records with fewer negatives than asked for, fewest first.
        histogram: similarities of positives and negatives of the written records.
        examples: from the narrowest gap between positive and negative (is that negative really
            wrong?) to the widest.
    """

    started: float
    seconds: float
    model: str
    data: str
    output: str
    rules: MiningRules
    pool: str
    backend: str
    records: RecordCounts
    queries: int
    documents: int
    merged_documents: int
    candidates: Mapping[str, int]
    negatives: int
    replaced_negatives: int
    miners: tuple[str, ...]
    scored_by: str
    examined: int
    recall: Mapping[str, float]
    too_few: tuple[TooFew, ...]
    histogram: Histogram
    examples: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain types, with the format's number."""
        return {"format": FORMAT, **asdict(self)}


def histogram(records: Sequence[Record]) -> Histogram:
    """Counts the scores of the records' positives and negatives; there is at least one of them."""
    positives = torch.tensor([score for record in records for score in record.positive_scores])
    negatives = torch.tensor([score for record in records for score in record.negative_scores])
    both = torch.cat([positives, negatives])
    low, high = float(both.min()), float(both.max())
    if high - low < 1e-6:  # one value only still needs bins of some width
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)

    def count(scores: torch.Tensor) -> tuple[int, ...]:
        # The inner edges alone divide the line, so the outermost values stay inside.
        return tuple(torch.bincount(torch.bucketize(scores.double(), edges[1:-1]), minlength=BINS).tolist())

    return Histogram(tuple(round(edge, 6) for edge in edges.tolist()), count(positives), count(negatives))


def too_few(mined: Sequence[Record], per_query: int) -> tuple[TooFew, ...]:
    """Up to `LISTED` records with fewer negatives than asked for, those with the fewest first."""
    short = [record for record in mined if len(record.negatives) < per_query]
    short.sort(key=lambda record: len(record.negatives))
    return tuple(TooFew(record.id, shown(record.query), len(record.negatives)) for record in short[:LISTED])


def examples(records: Sequence[Record]) -> tuple[Example, ...]:
    """Up to `EXAMPLES` records, evenly spread over the gap between positive and negative."""
    gaps = sorted(
        (min(record.positive_scores) - record.negative_scores[0], record.query, at)
        for at, record in enumerate(records)
        if record.negative_scores
    )
    last = min(EXAMPLES, len(gaps)) - 1
    picked = [gaps[step * (len(gaps) - 1) // max(last, 1)][2] for step in range(last + 1)]
    return tuple(_example(records[at]) for at in picked)


def _example(record: Record) -> Example:
    scored = zip(record.positive_scores, record.positives, strict=True)
    score, positive = min(scored, key=lambda pair: pair[0])
    return Example(
        query=shown(record.query),
        positive=shown(positive.text),
        negative=shown(record.negatives[0].text),
        positive_score=score,
        negative_score=record.negative_scores[0],
    )


def show(summary: MiningSummary, console: Console) -> None:
    """Prints the counts, the histogram and the examples."""
    console.print(_counts(summary), _bars(summary.histogram), _readable(summary.examples))
    console.print(f"{summary.output}: {summary.records.kept} records in {summary.seconds:.0f} s")


def _counts(summary: MiningSummary) -> Table:
    records, candidates = summary.records, summary.candidates
    table = Table(title="Mined hard negatives", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("records read", f"{records.read}")
    table.add_row("  kept", f"{records.kept}")
    table.add_row(f"    of these with fewer than {summary.rules.per_query} negatives", f"{records.short}")
    table.add_row("  dropped: too few negatives", f"{records.dropped}")
    table.add_row("invalid rows skipped by the readers", f"{records.skipped}")
    table.add_row("different queries", f"{summary.queries}")
    table.add_row("different documents searched", f"{summary.documents}")
    table.add_row("document ids merged: same text", f"{summary.merged_documents}")
    table.add_row("negatives written", f"{summary.negatives}")
    table.add_row("earlier negatives replaced", f"{summary.replaced_negatives}", end_section=True)
    table.add_row(f"{summary.examined} nearest of each query", f"{candidates['examined']}")
    for rule in DROPS:
        table.add_row(f"  dropped by {rule}", f"{candidates[rule]}")
    table.add_row("  eligible", f"{candidates['eligible']}")
    return table


def _bars(counts: Histogram) -> Table:
    table = Table(title="Similarity to the query")
    table.add_column("from", justify="right")
    table.add_column("positives")
    table.add_column("negatives")
    most = max(counts.positives), max(counts.negatives)
    for low, *bins in zip(counts.edges, counts.positives, counts.negatives, strict=False):
        table.add_row(f"{low:.3f}", *(_bar(count, full) for count, full in zip(bins, most, strict=True)))
    return table


def _bar(count: int, most: int) -> str:
    return f"{'█' * -(-count * BAR // max(most, 1)):<{BAR}} {count}"


def _readable(picked: Sequence[Example]) -> Table:
    table = Table(title="Examples, narrowest gap first", show_lines=True)
    for column in ("query", "positive", "negative"):
        table.add_column(column)
    for example in picked:
        table.add_row(
            escape(example.query),
            f"{example.positive_score:.3f} {escape(example.positive)}",
            f"{example.negative_score:.3f} {escape(example.negative)}",
        )
    return table
