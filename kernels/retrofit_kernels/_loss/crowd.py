"""Rows of all processes: how many each has, gathering them, and giving sums back to their owners."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

# torch 2.13 renamed the two and warns of the old names; earlier versions have only those.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, eq=False)
class Crowd:
    """The processes and their shares of a batch.

    Attributes:
        rank: of this process.
        query_counts: number of queries of each process.
        document_counts: number of documents of each process.
        group: the processes, None for all.
    """

    rank: int
    query_counts: list[int]
    document_counts: list[int]
    group: ProcessGroup | None

    @property
    def queries(self) -> int:
        """Number of all queries."""
        return sum(self.query_counts)

    @property
    def first_query(self) -> int:
        """Place of this process's first query among all."""
        return sum(self.query_counts[: self.rank])

    @property
    def first_document(self) -> int:
        """Place of this process's first document among all."""
        return sum(self.document_counts[: self.rank])

    def gather_queries(self, tensor: Tensor) -> Tensor:
        """All processes' rows, by rank, of a tensor with a row for each query."""
        return _gather(tensor.detach(), self.query_counts, self.group)

    def gather_documents(self, tensor: Tensor) -> Tensor:
        """All processes' rows, by rank, of a tensor with a row for each document."""
        return _gather(tensor.detach(), self.document_counts, self.group)

    def scatter_queries(self, tensor: Tensor) -> Tensor:
        """This process's rows of the sum of all processes' (queries, …) tensors."""
        return _scatter(tensor, self.query_counts, self.rank, self.group)

    def scatter_documents(self, tensor: Tensor) -> Tensor:
        """This process's rows of the sum of all processes' (documents, …) tensors."""
        return _scatter(tensor, self.document_counts, self.rank, self.group)

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        dist.all_reduce(tensor, group=self.group)
        return tensor


def _gather(rows: Tensor, counts: list[int], group: ProcessGroup | None) -> Tensor:
    """Collectives want equal shares: the shorter ones are filled up, and cut again."""
    most = max(counts)
    filled = rows.new_zeros(most, *rows.shape[1:])
    filled[: len(rows)] = rows
    together = rows.new_empty(len(counts) * most, *rows.shape[1:])
    _all_gather(together, filled, group=group)
    if min(counts) == most:
        return together
    return torch.cat(
        [part[:count] for part, count in zip(together.split(max(1, most)), counts, strict=False)]
    )


def _scatter(rows: Tensor, counts: list[int], rank: int, group: ProcessGroup | None) -> Tensor:
    most = max(counts)
    filled = rows
    if min(counts) < most:
        filled = rows.new_zeros(len(counts), most, *rows.shape[1:])
        for place, part in enumerate(rows.split(counts)):
            filled[place, : len(part)] = part
        filled = filled.flatten(0, 1)
    mine = rows.new_empty(most, *rows.shape[1:])
    _reduce_scatter(mine, filled.contiguous(), group=group)
    return mine[: counts[rank]]
