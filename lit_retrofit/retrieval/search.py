"""Exact nearest-neighbour search: mining, evaluation and search by hand all go through here."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from retrofit_kernels import NeighbourOptions, Neighbours, nearest_neighbours
from torch import Tensor

from lit_retrofit.errors import UserError

Backend = Literal["torch", "faiss"]


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
        queries: (Q, D) floating point.
        corpus: (N, D) floating point.
        k: 1 … N.
        options: what a query may not find: see `retrofit_kernels.NeighbourOptions`.
        backend: torch works where the queries are, on a recent GPU with this project's own kernels; faiss
            works on the CPU, and with faiss-gpu on the queries' GPU.

    Returns:
        Scores (Q, k) and positions in the corpus (Q, k), best first, equal scores by position. Where
        fewer than k documents may be found, the rest is -inf and -1.

    Raises:
        UserError: the backend is faiss and faiss is not installed.
        ValueError: ``k`` is out of range, shapes do not fit, or a value is not finite.
    """
    kernel: Literal["auto", "faiss"] = "faiss" if backend == "faiss" else "auto"
    options = replace(options or NeighbourOptions(), backend=kernel)
    try:
        return nearest_neighbours(queries, corpus, k, options=options)
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        raise UserError(
            "the backend faiss needs the package faiss: pip install faiss-cpu, or use the backend torch"
        ) from None
