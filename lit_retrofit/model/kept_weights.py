"""Weights that layers make of others: on a CPU made once, while it is known that nothing changes them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from lit_retrofit.model.device import free_memory

KEPT_SHARE = 0.1
"""Of the memory that is free when the first is made: of a large model not all are kept."""
_IN_USE: ContextVar[KeptWeights | None] = ContextVar("_IN_USE", default=None)


class KeptWeights:
    """What was made of weights in one step, or in one pass over a corpus.

    Only the caller knows how long weights stay as they are: a tensor's version does not tell, `.data` goes
    around it. Made for each micro-batch anew, LoRA's sums take a tenth of a step of 64 pairs on
    multilingual-e5-small (float32, five micro-batches); kept, they take the memory of the layers' weights.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Tensor] = {}
        self._room: float | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, what layers make is kept here and taken from here."""
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What was made under this key, or what is made now."""
        made = self._made.get(key)
        if made is None:
            made = make()
            if self._room is None:
                self._room = KEPT_SHARE * free_memory(made.device)
            if made.nbytes <= self._room:
                self._room -= made.nbytes
                self._made[key] = made
        return made

    def clear(self) -> None:
        """Forgets all: the weights are about to change, or memory ran out."""
        self._made.clear()
        self._room = None


def in_use(device: torch.device) -> KeptWeights | None:
    """Where weights are kept at the moment; None on a GPU, where memory is dearer than making them again."""
    return _IN_USE.get() if device.type == "cpu" else None
