"""Similarities of queries to their positives and hard negatives, and the negatives that may be answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.data.records import Document, Record
from lit_retrofit.inspection.texts import shown
from lit_retrofit.model.tokenizer import Role

Embed = Callable[[Sequence[str], Role], NDArray[np.float32]]
# Of a record with more documents on a side, so many are scored.
_MOST = 16
_BINS = 40
IDENTICAL, ABOVE, NEAR = "identical to the positive", "above the positive", "near the positive"


@dataclass(frozen=True)
class ScoredRecord:
    """A record with the similarity of its documents to its query.

    Attributes:
        record: as it was read.
        positives: of each positive, or of its first 16.
        negatives: of each hard negative, or of its first 16.
    """

    record: Record
    positives: tuple[float, ...]
    negatives: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """A set of similarities: their number, mean, median, and the bounds of the middle 90 of a hundred."""

    count: int
    mean: float
    p5: float
    median: float
    p95: float


@dataclass(frozen=True)
class Suspect:
    """A hard negative that may answer its query.

    Attributes:
        record: the record's id.
        query: shortened, like the other texts.
        positive: the record's lowest-scoring one.
        negative: the suspect.
        positive_score: None where it is suspected for its text alone.
        negative_score: likewise.
        reason: why.
    """

    record: str
    query: str
    positive: str
    negative: str
    positive_score: float | None
    negative_score: float | None
    reason: str


@dataclass(frozen=True)
class Scores:
    """The similarities of a sample.

    Attributes:
        by: whose they are.
        records: how many were scored.
        positives: of all positives.
        negatives: of all hard negatives; None where there are none.
        edges: of the bins, all alike.
        positive_counts: positives per bin.
        negative_counts: hard negatives per bin.
        hardest_first: share of the records with hard negatives whose best negative is above their lowest
            positive.
    """

    by: str
    records: int
    positives: Spread
    negatives: Spread | None
    edges: tuple[float, ...]
    positive_counts: tuple[int, ...]
    negative_counts: tuple[int, ...]
    hardest_first: float | None


def score_by_model(sample: Sequence[Record], embed: Embed) -> list[ScoredRecord]:
    """Scores records by the inner products of a model's embeddings, equal texts embedded once."""
    if not sample:
        return []
    documents = list(dict.fromkeys(d.text for record in sample for d in _scored(record)))
    rows = {text: row for row, text in enumerate(documents)}
    queries = embed([record.query for record in sample], "query")
    embedded = embed(documents, "document")
    found = []
    for record, query in zip(sample, queries, strict=True):
        similar = embedded[[rows[d.text] for d in _scored(record)]] @ query
        split = len(record.positives[:_MOST])
        found.append(ScoredRecord(record, tuple(similar[:split].tolist()), tuple(similar[split:].tolist())))
    return found


def score_by_records(sample: Sequence[Record]) -> list[ScoredRecord]:
    """The scores that a miner or a teacher left in the records; records without are left out."""
    return [
        ScoredRecord(record, record.positive_scores[:_MOST], record.negative_scores[:_MOST])
        for record in sample
        if record.positive_scores
    ]


def _scored(record: Record) -> list[Document]:
    return [*record.positives[:_MOST], *record.negatives[:_MOST]]


def describe_scores(scored: Sequence[ScoredRecord], by: str) -> Scores | None:
    """Puts the similarities into figures; None where nothing was scored."""
    if not scored:
        return None
    positives = np.array([score for one in scored for score in one.positives])
    negatives = np.array([score for one in scored for score in one.negatives])
    both = np.concatenate([positives, negatives])
    low, high = float(both.min()), float(both.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    harder = [max(one.negatives) >= min(one.positives) for one in scored if one.negatives]
    return Scores(
        by=by,
        records=len(scored),
        positives=_spread(positives),
        negatives=_spread(negatives) if len(negatives) else None,
        edges=tuple(edges.tolist()),
        positive_counts=tuple(np.histogram(positives, edges)[0].tolist()),
        negative_counts=tuple(np.histogram(negatives, edges)[0].tolist()),
        hardest_first=sum(harder) / len(harder) if harder else None,
    )


def _spread(values: NDArray) -> Spread:
    p5, median, p95 = np.percentile(values, [5, 50, 95]).tolist()
    return Spread(len(values), float(values.mean()), p5, median, p95)


def find_suspects(
    scored: Sequence[ScoredRecord], sample: Sequence[Record], near: float, most: int
) -> tuple[dict[str, int], list[Suspect]]:
    """Hard negatives that are a positive's text, or score as high as `near` times the lowest positive.

    A share of a score needs one above zero: below, only negatives above the positive are suspects
    (NV-Retriever, arXiv 2407.15831, drops by the same rule).

    Args:
        scored: the records with similarities.
        sample: all records that are looked through for equal texts.
        near: share of the lowest positive's score.
        most: how many to show, the highest above their positive first.

    Returns:
        How many there are of each reason, and those shown.
    """
    counts: Counter[str] = Counter()
    found: list[tuple[float, Suspect]] = []
    for record in sample:
        texts = {document.text for document in record.positives}
        for negative in record.negatives:
            if negative.text in texts:
                counts[IDENTICAL] += 1
                found.append((np.inf, _suspect(record, negative, negative, None, None, IDENTICAL)))
    for one in scored:
        lowest = int(np.argmin(one.positives))
        limit = one.positives[lowest]
        texts = {document.text for document in one.record.positives}
        for negative, score in zip(one.record.negatives, one.negatives, strict=False):
            if negative.text in texts or score < (near * limit if limit > 0 else limit):
                continue
            reason = ABOVE if score >= limit else NEAR
            counts[reason] += 1
            positive = one.record.positives[lowest]
            found.append((score - limit, _suspect(one.record, positive, negative, limit, score, reason)))
    found.sort(key=lambda pair: (-pair[0], pair[1].record))
    return dict(counts), [suspect for _, suspect in found[:most]]


def _suspect(
    record: Record,
    positive: Document,
    negative: Document,
    positive_score: float | None,
    negative_score: float | None,
    reason: str,
) -> Suspect:
    return Suspect(
        shown(record.id, 80), shown(record.query), shown(positive.text), shown(negative.text),
        positive_score, negative_score, reason,
    )  # fmt: skip
