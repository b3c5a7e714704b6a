"""Exact nearest neighbours by inner product, in the memory of a tile of scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from retrofit_kernels._checks import (
    check_bytes,
    check_embeddings,
    check_floats,
    check_integers,
    check_same_dimension,
    check_together,
    compute_dtype,
)
from retrofit_kernels._pairs import find_pairs, strip_bounds

TILE_COLUMNS = 32768
"""Wide tiles make the merge of their best k rare; a tile of the corpus is what may be copied or converted."""
TILE_ROWS = 1024
MIN_TILE_ROWS = 64
"""Below this height a product no longer runs at its peak rate: make the tile narrower instead."""
PAIRS_PER_SCORE = 1 / 32
"""Excluded pairs per score: their indices then need about as much memory as the scores."""
TIED_ROWS = 64
"""Rows with a tie at rank k that are looked through at a time."""


@dataclass(frozen=True, eq=False)
class NeighbourOptions:
    """What a query may not find; all of it is applied before the selection of the best k.

    Attributes:
        query_ids: (Q,) or (Q, P) int64, ids of the documents each query must not find; -1 is padding. Comes
            together with `corpus_ids`.
        corpus_ids: (N,) int64.
        ceiling: (Q,) floating point; only scores strictly below it are found.
        query_groups: (Q,) int64; a query finds only documents of its own group (a language, for instance).
            Comes together with `corpus_groups`. Groups are searched one by one, so they also save time.
        corpus_groups: (N,) int64.
        strip_bytes: memory budget of one tile of scores, in bytes.
    """

    query_ids: Tensor | None = None
    corpus_ids: Tensor | None = None
    ceiling: Tensor | None = None
    query_groups: Tensor | None = None
    corpus_groups: Tensor | None = None
    strip_bytes: int = 256 << 20


class Neighbours(NamedTuple):
    """The best documents of each query, best first.

    Attributes:
        scores: (Q, k) fp32, -inf where fewer than k documents could be found.
        indices: (Q, k) int64, rows of the corpus, -1 where fewer than k documents could be found.
    """

    scores: Tensor
    indices: Tensor


@torch.no_grad()
def nearest_neighbours(
    queries: Tensor, corpus: Tensor, k: int, *, options: NeighbourOptions | None = None
) -> Neighbours:
    """Find each query's k documents of largest inner product, exactly.

    The corpus is read once, from front to back, in tiles of at most 32,768 documents; it may be memory-mapped
    (``torch.from_numpy``), in another floating-point type than the queries, or in the memory of the CPU while
    the queries are on a GPU. Equal scores are ordered by the smaller row of the corpus.

    Args:
        queries: (Q, D) floating point. Scores are computed in fp32, or fp64 where an input is fp64.
        corpus: (N, D) floating point.
        k: number of documents per query, 1 … N.
        options: exclusions and memory; its tensors are on the queries' device.

    Returns:
        Scores and indices, each (Q, k), on the queries' device.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, device or value; NaN among the scores.
    """
    options = options or NeighbourOptions()
    _check(queries, corpus, k, options)
    dtype = compute_dtype(queries.dtype, corpus.dtype)
    scores = torch.full((len(queries), k), -torch.inf, dtype=dtype, device=queries.device)
    indices = torch.full((len(queries), k), -1, device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        for pool in _pools(queries.to(dtype), corpus, options):
            best = Neighbours(
                torch.full_like(scores[: len(pool.queries)], -torch.inf),
                torch.full_like(indices[: len(pool.queries)], -1),
            )
            _search(pool, best, options.strip_bytes)
            scores[pool.rows], indices[pool.rows] = best
    return Neighbours(scores.float(), indices)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Queries and the documents they may find.

    Attributes:
        rows: (q,) rows of these queries.
        queries: (q, D).
        corpus: (N, D), the whole corpus.
        columns: (n,) ascending rows of the pool's documents in the corpus, or None for all.
        query_ids: (q,) or (q, P), or None.
        corpus_ids: (N,), or None.
        ceiling: (q,), or None.
    """

    rows: Tensor
    queries: Tensor
    corpus: Tensor
    columns: Tensor | None
    query_ids: Tensor | None
    corpus_ids: Tensor | None
    ceiling: Tensor | None


def _pools(queries: Tensor, corpus: Tensor, options: NeighbourOptions) -> Iterator[_Pool]:
    """One pool, or one for each group of queries."""
    rows = torch.arange(len(queries), device=queries.device)
    if options.query_groups is None or options.corpus_groups is None:
        yield _Pool(rows, queries, corpus, None, options.query_ids, options.corpus_ids, options.ceiling)
        return
    for group in options.query_groups.unique():
        rows = (options.query_groups == group).nonzero().squeeze(1)
        columns = (options.corpus_groups == group).nonzero().squeeze(1)
        query_ids = None if options.query_ids is None else options.query_ids[rows]
        ceiling = None if options.ceiling is None else options.ceiling[rows]
        yield _Pool(rows, queries[rows], corpus, columns, query_ids, options.corpus_ids, ceiling)


def _search(pool: _Pool, best: Neighbours, strip_bytes: int) -> None:
    """Go through the pool's documents tile by tile and keep the best of each query in `best`."""
    rows, documents = len(pool.queries), len(pool.corpus if pool.columns is None else pool.columns)
    entries = max(1, strip_bytes // pool.queries.element_size())
    width = max(1, min(documents, TILE_COLUMNS, entries // MIN_TILE_ROWS))
    height = max(1, min(rows, TILE_ROWS, entries // width))
    buffer = pool.queries.new_empty(height * width)
    for start in range(0, documents, width):
        columns = torch.arange(start, min(start + width, documents), device=pool.queries.device)
        place: slice | Tensor = slice(start, start + width)
        if pool.columns is not None:
            columns = place = pool.columns[place]
        tile = pool.corpus[place if isinstance(place, slice) else place.to(pool.corpus.device)]
        tile = tile.to(pool.queries.device, pool.queries.dtype)
        excluded = None
        if pool.query_ids is not None and pool.corpus_ids is not None:
            excluded = find_pairs(pool.query_ids, pool.corpus_ids[place])
        max_pairs = max(width, int(height * width * PAIRS_PER_SCORE))
        for begin, end in strip_bounds(rows, height, excluded, max_pairs):
            scores = buffer[: (end - begin) * len(tile)].view(end - begin, len(tile))
            torch.mm(pool.queries[begin:end], tile.T, out=scores)
            if excluded is not None:
                row, column = excluded.expand(begin, end)
                scores.view(-1).index_fill_(0, row * len(tile) + column, -torch.inf)
            if pool.ceiling is not None:
                scores.masked_fill_(scores >= pool.ceiling[begin:end].unsqueeze(1), -torch.inf)
            _merge(best, begin, end, scores, columns)


def _merge(best: Neighbours, begin: int, end: int, scores: Tensor, columns: Tensor) -> None:
    """Merge a tile of scores into the best of the queries `begin` … `end` - 1."""
    k = best.scores.shape[1]
    found = _best_columns(scores, min(k, scores.shape[1]))
    # Earlier finds have smaller columns and the tile's finds ascend: a stable sort breaks ties rightly. It
    # also leaves the -1 that stand there at first before whatever is excluded, for both score -inf.
    all_scores = torch.cat([best.scores[begin:end], scores.gather(1, found)], dim=1)
    all_indices = torch.cat([best.indices[begin:end], columns[found]], dim=1)
    all_scores, order = all_scores.sort(dim=1, descending=True, stable=True)
    best.scores[begin:end] = all_scores[:, :k]
    best.indices[begin:end] = all_indices.gather(1, order[:, :k])


def _best_columns(scores: Tensor, k: int) -> Tensor:
    """(rows, k) columns of each row's best k scores, ascending; of equal scores the smaller columns.

    `torch.topk` takes any of the scores that tie at rank k. One rank more shows whether there is such a tie.
    """
    values, found = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if bool(values.isnan().any()):
        raise ValueError("queries or corpus contain NaN or infinite values: their scores are NaN")
    if values.shape[1] > k:
        least = values[:, k - 1]
        tied = ((least == values[:, k]) & (least > -torch.inf)).nonzero().squeeze(1)
        found = found[:, :k].contiguous()
        for rows in tied.split(TIED_ROWS):
            found[rows] = _first_columns(scores[rows], least[rows].unsqueeze(1), k)
    return found.sort(dim=1).values


def _first_columns(scores: Tensor, least: Tensor, k: int) -> Tensor:
    """The columns above `least`, and as many of the first that equal it as make k."""
    above, equal = scores > least, scores == least
    wanted = k - above.sum(1, keepdim=True)
    taken = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= wanted))
    return taken.nonzero()[:, 1].view(len(scores), k)


def _check(queries: Tensor, corpus: Tensor, k: int, options: NeighbourOptions) -> None:
    check_embeddings("queries", queries)
    check_embeddings("corpus", corpus)
    check_same_dimension("queries", queries, "corpus", corpus)
    rows, documents, where = len(queries), len(corpus), queries.device
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an integer, not {k!r}")
    if not 1 <= k <= documents:
        raise ValueError(f"k must be from 1 to {documents}, the number of documents in corpus, not {k}")
    check_bytes("strip_bytes", options.strip_bytes)
    if check_together(query_ids=options.query_ids, corpus_ids=options.corpus_ids):
        check_integers("query_ids", options.query_ids, ((rows,), (rows, -1)), where)
        check_integers("corpus_ids", options.corpus_ids, ((documents,),), where)
    if check_together(query_groups=options.query_groups, corpus_groups=options.corpus_groups):
        check_integers("query_groups", options.query_groups, ((rows,),), where)
        check_integers("corpus_groups", options.corpus_groups, ((documents,),), where)
    if options.ceiling is not None:
        check_floats("ceiling", options.ceiling, ((rows,),), where)
