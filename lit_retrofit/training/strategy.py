"""Data-parallel training with one synchronisation of the gradients per optimizer step."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

NAME = "one_sync"
"""For `--trainer.strategy`."""
BUCKET_BYTES = 25 << 20
"""What DistributedDataParallel sends at a time: large enough to fill a network, small enough to copy."""


class AddsUpOnce:
    """Of a strategy: knows whether a step's gradient is complete, or accumulates over further batches."""

    _blocked = False

    @contextmanager
    def block_backward_sync(self) -> Generator:
        """Inside, gradients accumulate on each process by itself."""
        self._blocked = True
        try:
            yield
        finally:
            self._blocked = False


class OneSyncStrategy(AddsUpOnce, DDPStrategy):
    """Lightning's DDP, but for the wrapper around the module.

    A step's gradient comes from many backward passes, one for each micro-batch, and their number may differ
    between processes. DistributedDataParallel sends gradients in the middle of one backward pass and cannot
    know which of several is the last. Here they are added up over the processes once, when the step's own
    gradient is complete. The sum is what the loss is made for: it is the whole batch's on every process, with
    the gradient by this process's embeddings (see `distributed_info_nce`).
    """

    def configure_ddp(self) -> None:
        """Nothing is wrapped; all begin with the first process's trainable weights."""
        assert self.lightning_module is not None
        for parameter in trainable(self.lightning_module):
            dist.broadcast(parameter.data, 0)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Adds the gradients up, unless more of them are to come before the optimizer's step."""
        if not self._blocked:
            assert self.lightning_module is not None
            add_up_gradients(trainable(self.lightning_module))


StrategyRegistry.register(NAME, OneSyncStrategy, description="gradients are added up once per optimizer step")


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its sum over all processes. A missing one counts as zeros."""
    for bucket in _buckets(_gradient(parameter) for parameter in parameters):
        flat = _flatten_dense_tensors(bucket)
        dist.all_reduce(flat)
        for gradient, total in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
            gradient.copy_(total)


def trainable(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that get a gradient."""
    return (parameter for parameter in module.parameters() if parameter.requires_grad)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """All processes must send the same tensors, also where one had no use for a parameter."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type, in order, as many as fit together."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bytes_of_it = tensor.numel() * tensor.element_size()
        if bucket and (size + bytes_of_it > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += bytes_of_it
    if bucket:
        yield bucket
