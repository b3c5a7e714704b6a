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
    return _row(hidden, mask.argmax(1))


def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The state of the last unmasked token (decoder-style embedders); right for either padding side."""
    return _row(hidden, mask.shape[1] - 1 - mask.flip(1).argmax(1))


def _row(hidden: Tensor, position: Tensor) -> Tensor:
    # take_along_dim would fix the sizes of texts and tokens in an ONNX graph.
    index = position.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
    return hidden.gather(1, index).squeeze(1)


POOLING: dict[PoolingName, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean, "cls": cls, "last": last}
