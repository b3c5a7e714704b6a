"""A step's loss and its gradient, repeated without the kept graphs where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lit_retrofit.model.device import is_out_of_memory
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.objective import ObjectiveOutput
from lit_retrofit.training.objective.processes import process_count

Result = TypeVar("Result")


class StepLoss:
    """The loss over a step's cached embeddings.

    While it is computed, and on its way back to the embeddings, all kept graphs hold their memory. If it runs
    out in one of the trial steps, they are let go and the loss is computed anew on the same embeddings.

    Several processes exchange embeddings within the loss, and one that repeated it would wait for the others:
    there, running out of memory is an error at once.

    Args:
        cached: the step's embeddings.
        compute: their loss; called again where that is needed.
        parameters: that the loss itself trains.

    Attributes:
        figures: of the loss, to log.
        value: 0-d, the loss as a leaf: scale it, divide it, and call its `backward()` before this object's.
    """

    def __init__(
        self,
        cached: CachedEmbeddings,
        compute: Callable[[], ObjectiveOutput],
        parameters: Iterable[nn.Parameter],
    ) -> None:
        self._cached = cached
        self._compute = compute
        self._trained: list[Tensor] = [cached.leaf, *parameters]
        output = self._tried(compute)
        self.figures = output.figures
        self.value = output.loss.detach().requires_grad_(torch.is_grad_enabled())
        self._graph: Tensor | None = output.loss

    def backward(self) -> None:
        """Sends the gradient of `value` into the cached embeddings and the loss's own parameters.

        Raises:
            RuntimeError: before the backward pass of `value`.
        """
        if self.value.grad is None:
            raise RuntimeError("call backward() of the loss's value before StepLoss.backward()")
        before = [None if tensor.grad is None else tensor.grad.clone() for tensor in self._trained]
        self._tried(lambda: self._back(before))

    def _back(self, before: Sequence[Tensor | None]) -> None:
        """Through the loss's graph, or through a new one. A try that failed may have added to gradients."""
        graph, self._graph = self._graph, None
        if graph is None:
            graph = self._compute().loss
        for tensor, gradient in zip(self._trained, before, strict=True):
            tensor.grad = None if gradient is None else gradient.clone()
        graph.backward(self.value.grad)

    def _tried(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            repeatable = process_count() == 1 and self._cached.may_release
            if not (repeatable and is_out_of_memory(error)):
                raise
        self._cached.release()  # here, where the error no longer holds on to what was computed
        return work()
