"""Inner products of queries with a few documents each, without keeping the gathered documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_retrofit.training.objective.step import PADDING

# Bytes of documents gathered at a time. Autograd would keep all (B, K, D) of them until the backward pass:
# 1.6 GB for 65,536 queries with 8 documents of 768 dimensions each.
_GATHERED_BYTES = 64 << 20


def similarities_of(queries: Tensor, documents: Tensor, columns: Tensor) -> Tensor:
    """``s_ik = <queries_i, documents_columns(i,k)>``.

    Args:
        queries: (B, D) fp32 or fp64.
        documents: (N, D).
        columns: (B, K) int64, -1 is padding.

    Returns:
        (B, K), 0 for padding. There is no second derivative.
    """
    return _Similarities.apply(queries, documents, columns)


class _Similarities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, documents: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(queries, documents, columns)
        found = queries.new_empty(columns.shape)
        for rows in _row_blocks(queries, columns):
            # Not a matrix product: on a GPU that might be rounded to TF32.
            found[rows] = (queries[rows].unsqueeze(1) * _take(documents, columns[rows])).sum(2)
        return found.masked_fill_(columns == PADDING, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, documents, columns = ctx.saved_tensors
        weights = upstream.masked_fill(columns == PADDING, 0.0).unsqueeze(2)
        to_queries, to_documents = torch.empty_like(queries), torch.zeros_like(documents)
        for rows in _row_blocks(queries, columns):
            to_queries[rows] = (weights[rows] * _take(documents, columns[rows])).sum(1)
            _add_rows(to_documents, columns[rows], weights[rows] * queries[rows].unsqueeze(1))
        return to_queries, to_documents, None


def _row_blocks(queries: Tensor, columns: Tensor) -> Iterator[slice]:
    row_bytes = max(1, columns.shape[1] * queries.shape[1] * queries.element_size())
    step = max(1, _GATHERED_BYTES // row_bytes)
    return (slice(begin, begin + step) for begin in range(0, len(columns), step))


def _take(documents: Tensor, columns: Tensor) -> Tensor:
    return documents[columns.clamp(min=0)]


def _add_rows(target: Tensor, columns: Tensor, values: Tensor) -> None:
    places, rows = columns.clamp(min=0).flatten(), values.flatten(0, 1)
    if target.device.type == "cpu":
        target.index_add_(0, places, rows)
    else:  # by sorting, not by atomics: always in one order
        target.index_put_((places,), rows, accumulate=True)
