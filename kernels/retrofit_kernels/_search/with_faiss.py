"""Nearest neighbours with faiss: its flat index finds candidates, as deep as the exclusions demand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retrofit_kernels._search.best import Best
from retrofit_kernels._search.pool import Pool, magnitude, refuse_overflow
from retrofit_kernels._search.stream import chunks
from retrofit_kernels._search.with_torch import search as search_torch
from retrofit_kernels._shared.pairs import PADDING, as_rows

DEEPEN = 4
"""How many times deeper a search goes where too few documents survive."""
CANDIDATES = 1 << 22
"""Documents found, times excluded ids, that are filtered at a time: bounds the memory."""
DEEPEST_ON_GPU = 2048
"""Largest k of the indexes of faiss-gpu. What needs to go deeper is left to torch."""


def search(pool: Pool, best: Best, *, strip_bytes: int) -> float:
    """Search the pool's documents, put each query's best into `best`, and return the recall.

    Args:
        pool: what to search. faiss computes in fp32.
        best: nothing, so far.
        strip_bytes: documents that are handed to faiss at a time; it makes its own copy of them.

    Returns:
        1.0: the search is exact.
    """
    if not len(pool.queries) or not pool.documents:
        return 1.0
    index, deepest = _new_index(pool.queries.shape[1], pool.queries.device)
    here = pool.on_cpu()
    _add(index, here, strip_bytes)
    padding = 0 if here.query_ids is None else as_rows(here.query_ids).shape[1]
    pending = torch.arange(len(here.queries))
    depth = min(best.k + 1 + min(best.k, padding), here.documents)
    while len(pending) and depth <= deepest:
        unfinished = []
        for rows in pending.split(max(1, CANDIDATES // (depth * max(1, padding)))):
            unfinished.append(rows[~_search_rows(index, here, best, rows, depth)])
        pending, depth = torch.cat(unfinished), min(DEEPEN * depth, here.documents)
    if len(pending):
        rows = pending.to(pool.queries.device)
        rest = Best.empty(len(rows), best.k, torch.float32, pool.queries.device)
        deeper = pool.take(rows).in_type(torch.float32)
        search_torch(deeper, rest, approximate=False, strip_bytes=strip_bytes)
        best.put(rows, Best(rest.scores.to(best.scores.dtype), rest.indices))
    return 1.0


def _new_index(dimension: int, device: torch.device) -> tuple[Any, float]:
    """An empty index, and how deep it can be searched."""
    import faiss

    if device.type == "cuda" and hasattr(faiss, "GpuIndexFlatIP") and faiss.get_num_gpus():
        config = faiss.GpuIndexFlatConfig()
        config.device = torch.cuda.current_device() if device.index is None else device.index
        resources = faiss.StandardGpuResources()
        return faiss.GpuIndexFlatIP(resources, dimension, config), DEEPEST_ON_GPU
    return faiss.IndexFlatIP(dimension), float("inf")


def _add(index: Any, pool: Pool, strip_bytes: int) -> None:
    largest_query = magnitude(pool.queries) * pool.queries.shape[1]
    step = max(1, strip_bytes // (4 * pool.queries.shape[1]))
    for chunk in chunks(pool, strip_bytes):
        for piece in chunk.vectors.split(step):
            vectors = piece.float().contiguous()
            refuse_overflow(largest_query * magnitude(vectors), torch.float32, pool)
            index.add(vectors.numpy())


def _search_rows(index: Any, pool: Pool, best: Best, rows: Tensor, depth: int) -> Tensor:
    """Put what survives among the `depth` nearest of some rows into `best`; (R,) whether that is all."""
    near, places = (
        torch.from_numpy(found) for found in index.search(pool.queries[rows].float().numpy(), depth)
    )
    columns = places if pool.columns is None else pool.columns[places]
    columns, order = columns.sort(dim=1)
    scores = near.gather(1, order)
    scores = scores.masked_fill(~_allowed(scores, columns, rows, pool), -torch.inf)
    found = Best.empty(len(rows), best.k, torch.float32, scores.device).merged(scores, columns)
    # A document as good as the last survivor may wait just below the depth, at a smaller place.
    done = (found.scores[:, -1] > near[:, -1]) | (depth == pool.documents)
    where = best.scores.device
    scores = found.scores[done].to(where, best.scores.dtype)
    best.put(rows[done].to(where), Best(scores, found.indices[done].to(where)))
    return done


def _allowed(scores: Tensor, columns: Tensor, rows: Tensor, pool: Pool) -> Tensor:
    """(R, depth) bool: which of the documents found for the queries `rows` they may have."""
    allowed = torch.ones_like(columns, dtype=torch.bool)
    if pool.query_ids is not None and pool.corpus_ids is not None:
        excluded = as_rows(pool.query_ids)[rows].unsqueeze(1)
        same = pool.corpus_ids[columns].unsqueeze(-1) == excluded
        allowed &= ~(same & (excluded != PADDING)).any(dim=-1)
    if pool.ceiling is not None:
        allowed &= scores < pool.ceiling[rows].unsqueeze(1)
    return allowed
