"""How much memory the graphs of a step may keep between its two passes."""

from __future__ import annotations

import logging
from types import TracebackType

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lit_retrofit.model.device import free_memory

log = logging.getLogger(__name__)

CPU_SHARE = 0.5
"""Of the memory that is free at the first step: the rest is for the loss, the data and other programs."""
CUDA_SHARE = 0.8
"""Torch's allocator needs room for the micro-batch at work, and for holes between blocks."""
TRIAL_STEPS = 3
"""Steps in which running out of memory lowers the budget; later it is an error like any other."""


class GraphBudget:
    """Bytes of graphs that may be kept. Measured where none are given; lowered if memory runs out.

    Args:
        gigabytes: the budget, or None to take a share of what is free at the first step.
    """

    def __init__(self, gigabytes: float | None = None) -> None:
        self._limit = None if gigabytes is None else round(gigabytes * 1e9)
        self._steps = 0
        self._said = False

    def limit(self, device: torch.device) -> int:
        """Bytes that may be kept on this device."""
        if self._limit is None:
            share = CUDA_SHARE if device.type == "cuda" else CPU_SHARE
            self._limit = int(share * free_memory(device))
            log.info("graphs of a step may take %.1f GB", self._limit / 1e9)
        return self._limit

    @property
    def on_trial(self) -> bool:
        """Whether running out of memory is still answered by lowering the budget."""
        return self._steps < TRIAL_STEPS

    def end_step(self) -> None:
        """A step has gone through both passes."""
        self._steps += 1

    def lower(self, kept: int) -> None:
        """Memory ran out with this many bytes of graphs kept: at most half of them from now on."""
        self._limit = kept // 2
        self._steps = 0
        level = logging.DEBUG if self._said else logging.WARNING
        self._said = True
        log.log(
            level,
            "out of memory with %.2f GB of graphs kept; the step is repeated with %.2f GB (set "
            "model.graph_memory to begin there)",
            kept / 1e9,
            self._limit / 1e9,
        )


class GraphSize:
    """Counts what autograd keeps of the operations inside: distinct storages, without the weights'.

    Of checkpointed blocks that is what they begin with; what all share (masks, positions) is not seen. Their
    activations come and go in the backward pass, block by block: one block's come on top, as the graph of the
    micro-batch at work does.

    Args:
        weights: data pointers that are there anyway.
    """

    def __init__(self, weights: frozenset[int]) -> None:
        self._weights = weights
        self._seen: dict[int, int] = {}
        self._hooks = saved_tensors_hooks(self._count, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """Counted so far."""
        return sum(self._seen.values())

    def _count(self, tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._weights:
                self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __enter__(self) -> GraphSize:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
