"""How much memory the graphs of a step may keep between its two passes."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from types import TracebackType
from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lit_retrofit.model.cheap_layers import CheapLayers, Notes, Output
from lit_retrofit.model.device import free_memory
from lit_retrofit.training.freed_memory import FreedMemory

log = logging.getLogger(__name__)

CPU_SHARE = 0.5
"""Of the memory that is free at the first step, for all processes of the run on the machine together: the
rest is for the loss, the data and other programs."""
CUDA_SHARE = 0.8
"""Torch's allocator needs room for the micro-batch at work, and for holes between blocks."""
TRIAL_STEPS = 3
"""Steps in which running out of memory lowers the budget; later it is an error like any other."""


class GraphBudget:
    """Bytes of graphs that may be kept. Measured where none are given; lowered if memory runs out.

    Args:
        gigabytes: the budget of each process, or None to take a share of what is free at the first step.

    Attributes:
        processes: of the run on this machine: a CPU's memory is for all of them, each GPU's for one.
        freed: memory of graphs that are gone.
        most_kept: bytes of graphs in one of the steps so far.
    """

    def __init__(self, gigabytes: float | None = None) -> None:
        self._limit = None if gigabytes is None else round(gigabytes * 1e9)
        self._steps = 0
        self._said = False
        self.processes = 1
        self.freed = FreedMemory()
        self.most_kept = 0

    def limit(self, device: torch.device) -> int:
        """Bytes that may be kept on this device."""
        if self._limit is None:
            share = CUDA_SHARE if device.type == "cuda" else CPU_SHARE / self.processes
            self._limit = int(share * free_memory(device))
            log.info("graphs of a step may take %.1f GB", self._limit / 1e9)
        return self._limit

    @property
    def on_trial(self) -> bool:
        """Whether running out of memory is still answered by lowering the budget."""
        return self._steps < TRIAL_STEPS

    def end_step(self, kept: int) -> None:
        """A step has gone through both passes, with so many bytes of graphs kept."""
        self._steps += 1
        self.most_kept = max(self.most_kept, kept)

    def lower(self, kept: int) -> None:
        """Memory ran out with this many bytes of graphs kept: at most half of them from now on."""
        self._limit = kept // 2
        self._steps = self.most_kept = 0
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

    Only what is still alive at the end counts, which is why the result has to be held inside: a branch that
    nobody uses, such as BERT's pooler, is gone by then, and its place in memory is another tensor's.

    Of checkpointed blocks that is what they begin with; what all share (masks, positions) is not seen. Their
    activations come and go in the backward pass, block by block: one block's come on top.

    Args:
        weights: data pointers that are there anyway.
        cheap: layers whose output is not kept but made again.

    Attributes:
        bytes: the count, once all is done.
    """

    def __init__(self, weights: frozenset[int], cheap: CheapLayers | None = None) -> None:
        self.bytes = 0
        self._weights = weights
        # torch keeps one Python object for a storage as long as the storage lives
        self._seen: WeakSet[torch.UntypedStorage] = WeakSet()
        self._notes = Notes()
        self._inside = ExitStack()
        self._cheap = cheap

    def _keep(self, tensor: Tensor) -> Tensor | tuple[Output, torch.Size]:
        output = self._notes.find(tensor)
        if output is None:
            self._count(tensor)
            # As it is, an operation's output would hold the operation that keeps it: a graph that is dropped
            # would stay for good, for Python's collector does not see that circle.
            return tensor.detach()
        self._count(output.source)
        output.add_reader()
        return output, tensor.shape

    def _count(self, tensor: Tensor) -> None:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._weights:
                self._seen.add(storage)

    def __enter__(self) -> GraphSize:
        if self._cheap is not None:
            self._notes = self._inside.enter_context(self._cheap.noting())
        self._inside.enter_context(saved_tensors_hooks(self._keep, _take))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.__exit__(kind, error, trace)
        self._notes = Notes()  # lets go of the last outputs
        self.bytes = sum(storage.nbytes() for storage in self._seen)


def _take(kept: Tensor | tuple[Output, torch.Size]) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    output, shape = kept
    return output.again().view(shape)
