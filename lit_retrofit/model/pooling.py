"""From token states to one vector per text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

PoolingName = Literal["mean", "cls", "last"]


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of the unmasked states (multilingual-e5). A text without tokens gives zeros, not NaN."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """The state of the first unmasked token (bge-m3); right for either padding side."""
    first = mask.argmax(1)
    return hidden.take_along_dim(first.view(-1, 1, 1), dim=1).squeeze(1)


def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The state of the last unmasked token (decoder-style embedders); right for either padding side."""
    final = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return hidden.take_along_dim(final.view(-1, 1, 1), dim=1).squeeze(1)


POOLING: dict[PoolingName, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean, "cls": cls, "last": last}
