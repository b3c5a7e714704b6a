"""Queries and the documents they may find: the piece of work that every search backend takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retrofit_kernels._shared.checks import describe


@dataclass(frozen=True, eq=False)
class Pool:
    """Queries and the documents they may find.

    Attributes:
        rows: (q,) rows of these queries in the whole.
        queries: (q, D).
        corpus: (N, D), the whole corpus; any floating point, any device.
        columns: (n,) ascending rows of the pool's documents in the corpus, or None for all; like everything
            below on the queries' device.
        query_ids: (q,) or (q, P), or None.
        corpus_ids: (N,), or None.
        ceiling: (q,), or None.
    """

    rows: Tensor
    queries: Tensor
    corpus: Tensor
    columns: Tensor | None = None
    query_ids: Tensor | None = None
    corpus_ids: Tensor | None = None
    ceiling: Tensor | None = None

    @property
    def documents(self) -> int:
        """Number of documents in the pool."""
        return len(self.corpus) if self.columns is None else len(self.columns)

    def in_type(self, dtype: torch.dtype) -> Pool:
        """The same with the queries in another type, one after the other in memory."""
        return replace(self, queries=self.queries.to(dtype).contiguous())

    def on_cpu(self) -> Pool:
        """The same with everything but the corpus on the CPU."""
        columns, query_ids, corpus_ids, ceiling = (
            None if tensor is None else tensor.cpu()
            for tensor in (self.columns, self.query_ids, self.corpus_ids, self.ceiling)
        )
        return Pool(self.rows.cpu(), self.queries.cpu(), self.corpus, columns, query_ids, corpus_ids, ceiling)

    def with_ids(self, query_ids: Tensor, corpus_ids: Tensor) -> Pool:
        """The same with other names for the ids."""
        return replace(self, query_ids=query_ids, corpus_ids=corpus_ids)

    def take(self, rows: Tensor | slice) -> Pool:
        """The same documents for some of the queries, `rows` of this pool."""
        return replace(
            self,
            rows=self.rows[rows],
            queries=self.queries[rows],
            query_ids=None if self.query_ids is None else self.query_ids[rows],
            ceiling=None if self.ceiling is None else self.ceiling[rows],
        )


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive documents of a pool, on the queries' device.

    Attributes:
        vectors: (n, D), in the corpus' own type.
        columns: (n,) ascending rows of the documents in the corpus, or None where they follow `first`.
        first: the first document's place among the pool's documents.
        ids: (n,), or None.
    """

    vectors: Tensor
    columns: Tensor | None
    first: int
    ids: Tensor | None

    def rows_in_corpus(self, places: Tensor) -> Tensor:
        """Rows of the corpus of the documents at these places of the chunk."""
        return places + self.first if self.columns is None else self.columns[places]

    def part(self, start: int, end: int) -> Chunk:
        """The documents `start` … `end` - 1 of the chunk."""
        inside = slice(start, end)
        return Chunk(
            self.vectors[inside],
            None if self.columns is None else self.columns[inside],
            self.first + start,
            None if self.ids is None else self.ids[inside],
        )


def split_by_group(pool: Pool, query_groups: Tensor | None, corpus_groups: Tensor | None) -> Iterator[Pool]:
    """The pool itself, or one for each group of queries."""
    if query_groups is None or corpus_groups is None:
        yield pool
        return
    for group in query_groups.unique():
        columns = (corpus_groups == group).nonzero().squeeze(1)
        yield replace(pool.take((query_groups == group).nonzero().squeeze(1)), columns=columns)


def magnitude(vectors: Tensor) -> Tensor:
    """Largest absolute value, 0-d fp64; NaN or infinite if any value is. One pass and no (n, D) mask."""
    if not vectors.numel():
        return torch.zeros((), dtype=torch.float64, device=vectors.device)
    return torch.stack(vectors.aminmax()).double().abs().amax()


def refuse_overflow(bound: Tensor, dtype: torch.dtype, pool: Pool) -> None:
    """Raise unless `bound`, an upper bound of the scores' size, is a number of the type of the scores."""
    if bool(bound <= torch.finfo(dtype).max):
        return
    named = {"queries": pool.queries, "corpus": pool.corpus}
    for name, vectors in named.items():
        if not bool(magnitude(vectors).isfinite()):
            raise ValueError(f"{name} must be finite, but has NaN or infinite values ({describe(vectors)})")
    words = " and ".join(f"{name} ({describe(vectors)})" for name, vectors in named.items())
    raise ValueError(f"{words} hold too large values: their scores leave {dtype}; make them unit vectors")
