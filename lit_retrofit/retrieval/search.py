"""Exact nearest-neighbour search: mining, evaluation and search by hand all go through here."""

from __future__ import annotations

from typing import Any, Literal

import torch
from retrofit_kernels import NeighbourOptions, Neighbours, nearest_neighbours
from torch import Tensor

from lit_retrofit.errors import UserError

Backend = Literal["torch", "faiss"]
NOT_A_NUMBER = "queries or corpus contain NaN or infinite values"
DEEPEN = 4  # faiss searches this many times deeper where too few documents survive
CANDIDATES = 1 << 22  # pairs found by faiss, times excluded ids, filtered at a time: bounds the memory


def search(
    queries: Tensor,
    corpus: Tensor,
    k: int,
    *,
    options: NeighbourOptions | None = None,
    backend: Backend = "torch",
) -> Neighbours:
    """Finds each query's k nearest documents by inner product. Both backends are exact.

    Args:
        queries: (Q, D) float32.
        corpus: (N, D) float32.
        k: 1 … N.
        options: what a query may not find: see `retrofit_kernels.NeighbourOptions`.
        backend: torch works where the tensors are; faiss works on the CPU.

    Returns:
        Scores (Q, k) and positions in the corpus (Q, k), best first, equal scores by position. Where
        fewer than k documents may be found, the rest is -inf and -1.

    Raises:
        UserError: the backend is faiss and faiss is not installed.
        ValueError: ``k`` is out of range, shapes do not fit, or a value is not finite.
    """
    if backend == "torch":
        return nearest_neighbours(queries, corpus, k, options=options)
    return _search_faiss(queries, corpus, k, options or NeighbourOptions())


def _search_faiss(queries: Tensor, corpus: Tensor, k: int, options: NeighbourOptions) -> Neighbours:
    """Searches the rows that still lack survivors again and deeper, up to the whole corpus."""
    if not 1 <= k <= len(corpus):
        raise ValueError(f"k is {k}; the corpus has {len(corpus)} documents")
    index = _flat_index(corpus)
    vectors = queries.detach().float().cpu()
    scores = torch.full((len(queries), k), -torch.inf)
    indices = torch.full((len(queries), k), -1, dtype=torch.long)
    excluded = 0 if options.query_ids is None else options.query_ids[:1].numel()
    pending, depth = torch.arange(len(queries)), min(k + 1 + min(k, excluded), len(corpus))
    while len(pending):
        unfinished = []
        for rows in torch.split(pending, max(1, CANDIDATES // (depth * max(1, excluded)))):
            near, where = (torch.from_numpy(array) for array in index.search(vectors[rows].numpy(), depth))
            if bool((where < 0).any()):  # faiss pads with -1, here only for want of comparable scores
                raise ValueError(NOT_A_NUMBER)
            best = _best_survivors(near, where, k, _allowed(near, where, rows, options))
            # A document as good as the last survivor may wait just below the depth, at a smaller position.
            done = (best.scores[:, -1] > near[:, -1]) | (depth == len(corpus))
            scores[rows[done]], indices[rows[done]] = best.scores[done], best.indices[done]
            unfinished.append(rows[~done])
        pending, depth = torch.cat(unfinished), min(DEEPEN * depth, len(corpus))
    return Neighbours(scores=scores.to(queries.device), indices=indices.to(queries.device))


def _flat_index(corpus: Tensor) -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError(
            "the backend faiss needs the package faiss: pip install faiss-cpu, or use the backend torch"
        ) from None
    vectors = corpus.detach().float().cpu().contiguous()
    if not bool(vectors.isfinite().all()):
        raise ValueError(NOT_A_NUMBER)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors.numpy())
    return index


def _allowed(scores: Tensor, indices: Tensor, rows: Tensor, options: NeighbourOptions) -> Tensor:
    """(R, depth) bool: which of the documents found for the queries ``rows`` they may have."""
    allowed = torch.ones_like(indices, dtype=torch.bool)
    if options.query_ids is not None and options.corpus_ids is not None:
        excluded = options.query_ids.cpu()[rows].reshape(len(rows), 1, -1)
        same = options.corpus_ids.cpu()[indices].unsqueeze(-1) == excluded
        allowed &= ~(same & (excluded != -1)).any(dim=-1)
    if options.ceiling is not None:
        allowed &= scores < options.ceiling.cpu()[rows].unsqueeze(1)
    if options.query_groups is not None and options.corpus_groups is not None:
        allowed &= options.corpus_groups.cpu()[indices] == options.query_groups.cpu()[rows].unsqueeze(1)
    return allowed


def _best_survivors(scores: Tensor, indices: Tensor, k: int, allowed: Tensor) -> Neighbours:
    """The k best allowed documents of each row, equal scores by position."""
    indices, order = indices.sort(dim=1)
    scores = scores.gather(1, order).masked_fill(~allowed.gather(1, order), -torch.inf)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    indices = indices.gather(1, order).masked_fill(scores == -torch.inf, -1)
    return Neighbours(scores=scores[:, :k], indices=indices[:, :k])
