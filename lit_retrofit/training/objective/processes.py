"""Sums and means over the batch that all processes make, with the gradient of this process's part."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if process_count() > 1 else 0


def add_up(parts: Tensor) -> Tensor:
    """The sum of all processes' tensors; in backward, the gradient by this process's part.

    All processes then hold the same loss, of which each has the gradient by its own embeddings: the gradient
    of a shared parameter is the sum over the processes. Nothing is communicated in backward.
    """
    return parts if process_count() == 1 else _Sum.apply(parts)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor) -> Tensor:
        total = parts.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return upstream[0]


class Mean(NamedTuple):
    """A mean over all processes.

    Attributes:
        value: 0-d; 0, with gradient 0, where nothing counts.
        left_out: 0-d, share of the values that do not count, without gradient.
    """

    value: Tensor
    left_out: Tensor


def mean_of(values: Tensor, counted: Tensor) -> Mean:
    """The mean of the values that count, over all processes.

    Args:
        values: floating point, of any shape; finite also where they do not count.
        counted: bool, of the same shape.
    """
    numbers = torch.stack([counted.sum(), (~counted).sum()]).to(values.dtype)
    parts = torch.cat([values.masked_fill(~counted, 0.0).sum().unsqueeze(0), numbers])
    total, count, others = add_up(parts).unbind()
    count, others = count.detach(), others.detach()
    return Mean(total / count.clamp(min=1), others / (count + others).clamp(min=1))


def widest(width: int, device: torch.device) -> int:
    """The greatest of all processes' widths."""
    if process_count() == 1:
        return width
    most = torch.tensor(width, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def held_before(ids: Tensor) -> Tensor:
    """(N,) bool: whether a process of lower rank has the same id. (N,) int64; processes may differ in N."""
    padded = ids.new_zeros(widest(len(ids), ids.device))
    padded[: len(ids)] = ids
    count = torch.tensor([len(ids)], device=ids.device)
    everyone = [torch.empty_like(padded) for _ in range(process_count())]
    counts = [torch.empty_like(count) for _ in range(process_count())]
    dist.all_gather(everyone, padded)
    dist.all_gather(counts, count)
    earlier = [part[: int(n)] for part, n in zip(everyone, counts, strict=True)][: process_rank()]
    return torch.isin(ids, torch.cat(earlier)) if earlier else torch.zeros_like(ids, dtype=torch.bool)


def anywhere(flag: Tensor) -> bool:
    """Whether a 0-d bool is true on any process."""
    total = flag.long()
    dist.all_reduce(total, op=dist.ReduceOp.MAX)
    return bool(total)
