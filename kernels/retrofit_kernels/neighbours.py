"""Nearest neighbours by inner product, in the memory of a tile of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retrofit_kernels._search import with_torch
from retrofit_kernels._search.best import Best
from retrofit_kernels._search.pool import Pool, split_by_group
from retrofit_kernels._search.recall import LEAST_SLOTS_PER_RANK, SLOTS
from retrofit_kernels._shared.backend import takes_triton, why_not_triton
from retrofit_kernels._shared.checks import (
    check_bytes,
    check_embeddings,
    check_floats,
    check_matching,
    check_same_dimension,
    check_type,
    check_values,
    compute_dtype,
)
from retrofit_kernels._shared.precision import own_precision

Backend = Literal["auto", "torch", "triton", "faiss"]
Mode = Literal["exact", "approximate"]


@dataclass(frozen=True, eq=False)
class NeighbourOptions:
    """What a query may not find, and how it is searched.

    The exclusions are applied before the selection of the best k: filtering the best k afterwards would
    throw away most of them where many documents score above the ceiling.

    Attributes:
        query_ids: (Q,) or (Q, P) int64, ids of the documents each query must not find; -1 is padding. Comes
            together with `corpus_ids`.
        corpus_ids: (N,) int64.
        ceiling: (Q,) floating point; only scores strictly below it are found. inf: none; NaN is refused.
        query_groups: (Q,) int64; a query finds only documents of its own group (a language, for instance).
            Comes together with `corpus_groups`. Groups are searched one by one, so they also save time.
        corpus_groups: (N,) int64.
        strip_bytes: memory budget of one tile of scores, in bytes.
        backend: "torch" works on any device. "triton" needs an NVIDIA GPU of compute capability 8.0 or more
            and fp16, bf16 or fp32; where two types meet, both are taken as fp32. "faiss" needs the package
            faiss, computes in fp32 on a copy of the corpus, on the GPU where both faiss and the queries can,
            and searches exactly only. "auto" is triton where it can, else torch.
        mode: "exact", or "approximate": the documents are dealt out to slots (4096 per query and tile of the
            corpus), each slot keeps its best, and the best k of these are found. Takes k up to 512; what is
            expected to be missed is in the result's `recall`.
    """

    query_ids: Tensor | None = None
    corpus_ids: Tensor | None = None
    ceiling: Tensor | None = None
    query_groups: Tensor | None = None
    corpus_groups: Tensor | None = None
    strip_bytes: int = 256 << 20
    backend: Backend = "auto"
    mode: Mode = "exact"


class Neighbours(NamedTuple):
    """The best documents of each query, best first.

    Attributes:
        scores: (Q, k) fp32, -inf where fewer than k documents could be found.
        indices: (Q, k) int64, rows of the corpus, -1 where fewer than k documents could be found.
        recall: expected share of the k best documents that were found, the mean over the queries. 1.0 in
            exact mode; otherwise by the formula of `retrofit_kernels._search.recall.expected_recall`,
            which assumes that a document's score says nothing about its place in the corpus.
    """

    scores: Tensor
    indices: Tensor
    recall: float = 1.0


@torch.no_grad()
def nearest_neighbours(
    queries: Tensor, corpus: Tensor, k: int, *, options: NeighbourOptions | None = None
) -> Neighbours:
    """Find each query's k documents of largest inner product.

    The corpus is read once, from front to back. It may be memory-mapped (``torch.from_numpy``), in another
    floating-point type than the queries, or in the memory of the CPU while the queries are on a GPU: then it
    is copied piece by piece while the GPU works. Equal scores are ordered by the smaller row of the corpus.

    Args:
        queries: (Q, D) floating point. Scores are computed in fp32, or fp64 where an input is fp64.
        corpus: (N, D) floating point, on the queries' device or on the CPU.
        k: number of documents per query, 1 … N.
        options: exclusions, memory, backend and mode; its tensors are on the queries' device.

    Returns:
        Scores and indices, each (Q, k), on the queries' device, and the expected recall.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, device or value; a backend or mode that is unknown or
            cannot work with these arguments; values that are not finite.
        ImportError: the backend is faiss and the package is not installed.
    """
    options = NeighbourOptions() if options is None else options
    _check(queries, corpus, k, options)
    best = Best.empty(len(queries), k, compute_dtype(queries.dtype, corpus.dtype), queries.device)
    rows = torch.arange(len(queries), device=queries.device)
    whole = Pool(rows, queries, corpus, None, options.query_ids, options.corpus_ids, options.ceiling)
    found = 0.0
    with torch.autocast(queries.device.type, enabled=False), own_precision():
        for pool in split_by_group(whole, options.query_groups, options.corpus_groups):
            part = Best.empty(len(pool.queries), k, best.scores.dtype, queries.device)
            found += _search(pool, part, options) * len(pool.queries)
            best.put(pool.rows, part)
    recall = found / len(queries) if len(queries) else 1.0
    return Neighbours(best.scores.float(), best.indices, recall)


def _search(pool: Pool, best: Best, options: NeighbourOptions) -> float:
    """Search a pool with the backend that the options name; returns the expected recall."""
    backend = options.backend
    if backend == "auto":
        backend = "triton" if takes_triton(best.scores) else "torch"
    approximate = options.mode == "approximate"
    if backend == "faiss":
        from retrofit_kernels._search import with_faiss

        return with_faiss.search(pool, best, strip_bytes=options.strip_bytes)
    if backend == "triton":
        from retrofit_kernels._search import with_triton

        return with_triton.search(pool, best, approximate=approximate, strip_bytes=options.strip_bytes)
    pool = pool.in_type(best.scores.dtype)
    return with_torch.search(pool, best, approximate=approximate, strip_bytes=options.strip_bytes)


def _check(queries: Tensor, corpus: Tensor, k: int, options: NeighbourOptions) -> None:
    check_embeddings("queries", queries)
    check_embeddings("corpus", corpus)
    check_same_dimension("queries", queries, "corpus", corpus)
    check_type("options", options, NeighbourOptions)
    rows, documents, where = len(queries), len(corpus), queries.device
    if corpus.device not in (where, torch.device("cpu")):
        raise ValueError(f"corpus must be on {where}, as queries are, or on cpu, not on {corpus.device}")
    check_values("queries", queries)
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an integer, not {k!r}")
    if not 1 <= k <= documents:
        raise ValueError(f"k must be from 1 to {documents}, the number of documents in corpus, not {k}")
    check_bytes("strip_bytes", options.strip_bytes)
    ids = "query_ids", options.query_ids, ((rows,), (rows, -1))
    check_matching(ids, ("corpus_ids", options.corpus_ids, ((documents,),)), where)
    groups = "query_groups", options.query_groups, ((rows,),)
    check_matching(groups, ("corpus_groups", options.corpus_groups, ((documents,),)), where)
    if options.ceiling is not None:
        check_floats("ceiling", options.ceiling, ((rows,),), where)
        unknown = options.ceiling.isnan()
        if bool(unknown.any()):
            row = int(unknown.nonzero()[0])
            raise ValueError(f"ceiling must be numbers, but row {row} is NaN; where there is none, use inf")
    _check_backend(queries, corpus, k, options)


def _check_backend(queries: Tensor, corpus: Tensor, k: int, options: NeighbourOptions) -> None:
    if options.backend not in ("auto", "torch", "triton", "faiss"):
        raise ValueError(f"backend must be auto, torch, triton or faiss, not {options.backend!r}")
    if options.mode not in ("exact", "approximate"):
        raise ValueError(f"mode must be exact or approximate, not {options.mode!r}")
    if options.mode == "approximate" and options.backend == "faiss":
        raise ValueError("mode must be exact with the backend faiss, not 'approximate'")
    most = SLOTS // LEAST_SLOTS_PER_RANK
    if options.mode == "approximate" and k > most:
        raise ValueError(f"k must be at most {most} in approximate mode ({SLOTS} slots), not {k}")
    if options.backend == "triton":
        needed = why_not_triton(queries) or why_not_triton(queries.new_empty(0, dtype=corpus.dtype))
        if needed:
            raise ValueError(f"the backend triton needs {needed} for queries and corpus")
