"""How long texts are, in tokens where a model is given, and how many are cut at its limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lit_retrofit.data.records import Record
from lit_retrofit.model.tokenizer import Role

# Of a longer text so much is tokenized: it is far beyond any limit by then.
_TOKENIZED = 50_000
Measure = Callable[[Sequence[str], Role], list[int]]


@dataclass(frozen=True)
class Lengths:
    """The lengths of the texts of one role.

    Attributes:
        texts: how many were measured.
        mean: of their lengths.
        median: likewise.
        p95: 95 of a hundred are no longer.
        longest: of all; of texts beyond 50,000 characters, of so many.
        limit: tokens that are kept, the prompt and special tokens included; None without a model.
        over: share of the texts that are cut there; None without a model.
        edges: of the bins, 1, 2, 3, 4, 6, 8, 12 …: a bin holds lengths from its edge up to the next.
        counts: texts per bin.
    """

    texts: int
    mean: float
    median: float
    p95: float
    longest: int
    limit: int | None
    over: float | None
    edges: tuple[int, ...]
    counts: tuple[int, ...]


def characters(texts: Sequence[str], role: Role) -> list[int]:
    """The measure without a model."""
    return [len(text) for text in texts]


def cut_for_tokens(text: str) -> str:
    """As much of a text as is tokenized for its length."""
    return text[:_TOKENIZED]


def describe(lengths: Sequence[int], limit: int | None) -> Lengths:
    """Puts the lengths into figures. There must be at least one."""
    values = np.asarray(lengths)
    edges = _edges(int(values.min()), int(values.max()))
    counts, _ = np.histogram(np.maximum(values, 1), bins=edges)
    return Lengths(
        texts=len(values),
        mean=float(values.mean()),
        median=float(np.median(values)),
        p95=float(np.percentile(values, 95, method="inverted_cdf")),
        longest=int(values.max()),
        limit=limit,
        over=None if limit is None else float((values > limit).mean()),
        edges=edges,
        counts=tuple(counts.tolist()),
    )


def _edges(low: int, high: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12 …: from the last that is not above the lowest to the first above the highest."""
    edges = sorted({1, 3, *(factor << power for power in range(1, 40) for factor in (1, 3))})
    first = max(i for i, edge in enumerate(edges) if edge <= max(low, 1))
    last = min(i for i, edge in enumerate(edges) if edge > max(high, 1))
    return tuple(edges[first : last + 1])


@dataclass(frozen=True)
class Measured:
    """The lengths of a sample's texts, role by role; a text is measured once.

    Attributes:
        queries: of each record's query.
        documents: of each text among the positives and negatives.
    """

    queries: list[int]
    documents: dict[str, int]


def measure_sample(sample: Sequence[Record], measure: Measure) -> Measured:
    """Measures all texts of the records."""
    texts = list(dict.fromkeys(d.text for r in sample for d in (*r.positives, *r.negatives)))
    found = dict(zip(texts, measure(texts, "document"), strict=True))
    return Measured(measure([record.query for record in sample], "query"), found)
