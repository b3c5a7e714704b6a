"""Nearest neighbours on an NVIDIA GPU: one matrix product whose scores stay on the chip.

The exact mode certifies what the lane bins kept. Each slot keeps its two best documents, and the search knows
the best score that found no room. If that lies below the k-th best exact score, by more than rounding can
explain, nothing was lost. The few rows of which this cannot be said (documents of the best k share a slot by
threes, or very many scores are nearly equal) are searched again with torch, in the same chunk of the corpus.

Why this way: a product of 2·Q·N·D FLOP and nothing of the size Q × N in memory. Scores in fp32 that are
written and read once take 8 bytes each; at dimension 768 on an H100 that lasts as long as the product
itself. A first pass for a bound and a second for all documents above it would double the product. With the
best k in L slots a row has to be searched again with a probability of k³ / 6L² at most (k = 100, L = 6400:
0.4 %), and rarely from the second chunk on, where only documents that exceed the k-th best so far are kept
at all. Data made to defeat it, such as all the best documents in one slot, cost one search with torch more,
never the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from retrofit_kernels._search.best import Best
from retrofit_kernels._search.configs import lane_bin_config
from retrofit_kernels._search.launch import (
    LOW_BITS,
    MOST_BLOCKS,
    MOST_TILES,
    PreparedQueries,
    exact_scores,
    kept_in_bins,
    upper,
)
from retrofit_kernels._search.pool import Chunk, Pool, refuse_overflow
from retrofit_kernels._search.recall import SLOTS, expected_recall, slot_sizes
from retrofit_kernels._search.stream import chunks
from retrofit_kernels._search.with_torch import scan
from retrofit_kernels._shared.pairs import PADDING, as_rows

SLOTS_PER_RANK = 64
"""In exact mode: leaves 0.4 % of the rows to torch at k = 100, 0.8 % at k = 200."""
SPARE = 32
"""Candidates beyond 2k: so small a k meets nearly equal scores too."""


def search(pool: Pool, best: Best, *, approximate: bool, strip_bytes: int) -> float:
    """Search the pool's documents, put each query's best into `best`, and return the expected recall."""
    if not len(pool.queries) or not pool.documents:
        return 1.0
    dtype = pool.queries.dtype if pool.queries.dtype == pool.corpus.dtype else torch.float32
    pool = _with_short_ids(pool.in_type(dtype))
    queries = _prepare(pool, approximate, strip_bytes)
    slots: list[tuple[int, int]] = []
    bounds = []
    most = MOST_TILES * SLOTS  # the low bits can name no more; or what may be converted at a time
    if dtype != pool.corpus.dtype:
        most = max(1, strip_bytes // (4 * pool.corpus.shape[1]))
    on_device = torch.cuda.device(pool.queries.device) if pool.queries.is_cuda else nullcontext()
    with on_device:
        for chunk in chunks(pool, strip_bytes):
            for part in _parts(chunk, most):
                vectors = part.vectors.to(dtype)
                vectors = vectors if vectors.stride(1) == 1 else vectors.contiguous()
                largest = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float32).amax()
                bounds.append(largest * queries.norms.amax())
                part = Chunk(vectors, part.columns, part.first, part.ids)
                slots += slot_sizes(len(vectors), _search_part(queries, part, best, largest))
    refuse_overflow(torch.stack(bounds).amax(), torch.float32, pool)
    return expected_recall(slots, best.k) if approximate else 1.0


def _prepare(pool: Pool, approximate: bool, strip_bytes: int) -> PreparedQueries:
    vectors = pool.queries
    ids = counts = None
    if pool.query_ids is not None:
        ids = as_rows(pool.query_ids)
        padded = ids == PADDING
        ids = ids.gather(1, padded.to(torch.int8).argsort(dim=1, stable=True)).contiguous()
        counts = (~padded).sum(dim=1, dtype=torch.int32)
    capability = torch.cuda.get_device_capability(vectors.device) if vectors.is_cuda else None
    return PreparedQueries(
        pool,
        ids,
        counts,
        torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float32),
        strip_bytes,
        not approximate,
        lane_bin_config(capability, vectors.element_size(), vectors.shape[1]),
    )


def _with_short_ids(pool: Pool) -> Pool:
    """The same with ids of 32 bits, which a GPU compares in half the time."""
    if pool.query_ids is None or pool.corpus_ids is None:
        return pool
    names, corpus_ids = pool.corpus_ids.unique(return_inverse=True)
    place = torch.searchsorted(names, pool.query_ids).clamp(max=len(names) - 1)
    # An id of no document becomes padding.
    known = (names[place] == pool.query_ids) & (pool.query_ids != PADDING)
    query_ids = place.masked_fill(~known, PADDING)
    return pool.with_ids(query_ids.int(), corpus_ids.int())


def _parts(chunk: Chunk, most: int) -> Iterator[Chunk]:
    """Pieces of at most `most` documents."""
    for start in range(0, len(chunk.vectors), most):
        yield chunk.part(start, min(start + most, len(chunk.vectors)))


def _search_part(queries: PreparedQueries, part: Chunk, best: Best, largest: Tensor) -> int:
    """Merge the best of some documents; returns the number of slots that they were dealt into."""
    splits = _splits(queries, best.k, len(part.vectors))
    slots = splits * queries.config.columns
    height = max(1, queries.strip_bytes // (4 * 4 * slots))  # bins of two ranks, twice for their top k
    for begin in range(0, len(best.scores), height):
        rows = slice(begin, min(begin + height, len(best.scores)))
        margin = queries.norms[rows, None] * largest * _relative_error(part.vectors)
        _search_rows(queries, rows, part, best.at(rows), margin, splits)
    return slots


def _splits(queries: PreparedQueries, k: int, documents: int) -> int:
    """Blocks that share a tile of rows: for enough slots, and for every multiprocessor to have two blocks."""
    config, vectors = queries.config, queries.pool.queries
    slots = max(SLOTS, SLOTS_PER_RANK * k) if queries.certified else SLOTS
    splits = -(-slots // config.columns)
    if vectors.is_cuda:
        blocks = 2 * torch.cuda.get_device_properties(vectors.device).multi_processor_count
        splits = max(splits, -(-blocks // -(-len(vectors) // config.rows)))
    return min(splits, -(-documents // config.columns), MOST_BLOCKS)


def _relative_error(vectors: Tensor) -> float:
    """Bound of |score - exact score| / (‖q‖ ‖d‖), for one of the tensor cores and a rescored one.

    Summing D products in fp32 errs by at most D·2^-24 if rounded and D·2^-23 if cut off, as tensor cores do
    (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"); |q|·|d| <= ‖q‖ ‖d‖. tf32 cuts both
    factors to 11 significant bits: 2 · 2^-10 more.
    """
    sums = (vectors.shape[1] + 8) * 2.0**-22
    return sums + 2.0**-9 if vectors.dtype == torch.float32 else sums


def _search_rows(
    queries: PreparedQueries, rows: slice, part: Chunk, best: Best, margin: Tensor, splits: int
) -> None:
    kept, lost = kept_in_bins(queries, rows, part, best.least - margin, margin, splits)
    count = min(2 * best.k + SPARE, kept.shape[1])
    kept, place = kept.topk(count, dim=1)
    slots = splits * queries.config.columns
    columns = (MOST_TILES - (kept & LOW_BITS)) * slots + place % slots
    columns = columns.masked_fill((kept & LOW_BITS) == 0, -1).int()
    pool = queries.pool.take(rows)
    found = _merged(pool, part, best, columns)
    if lost is not None:
        lost = torch.maximum(lost.amax(dim=1, keepdim=True), kept[:, -1:])
        uncertain = ((lost & LOW_BITS) != 0) & ~(upper(lost) + margin < found.least)
        again = uncertain.squeeze(1).nonzero().squeeze(1)
        if len(again):
            found.put(again, _search_again(pool.take(again), part, best.rows(again), queries.strip_bytes))
    best.put(slice(None), found)


def _search_again(pool: Pool, part: Chunk, best: Best, strip_bytes: int) -> Best:
    """The best of these rows together with this part, with torch."""
    local = Chunk(part.vectors, None, 0, part.ids)
    fresh = Best.empty(len(pool.queries), min(best.k, len(part.vectors)), torch.float32, best.scores.device)
    scan(pool.in_type(torch.float32), local, fresh, approximate=False, strip_bytes=strip_bytes)
    return _merged(pool, part, best, fresh.indices.int())


def _merged(pool: Pool, part: Chunk, best: Best, columns: Tensor) -> Best:
    """The best together with candidates by exact score; (R, c) int32 places in the part, -1 for none."""
    columns = columns.sort(dim=1).values
    scores = exact_scores(pool.queries, part.vectors, columns)
    if pool.ceiling is not None:
        scores.masked_fill_((scores < pool.ceiling.unsqueeze(1)).logical_not_(), -torch.inf)
    return best.merged(scores, part.rows_in_corpus(columns.clamp(min=0).long()))
