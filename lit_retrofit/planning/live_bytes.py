"""The most bytes of tensors that are alive at a time: a peak that a CPU's allocator does not tell."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations inside return, from their making to their end.

    What an operation allocates and frees by itself is not seen.

    Args:
        known: tensors that are there anyway, weights for instance; they and their views count nothing.

    Attributes:
        now: bytes that are alive.
        peak: the most there were.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = [tensor.untyped_storage() for tensor in known]
        self._alive = {id(storage) for storage in self._known}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Runs an operation and notes what it returns."""
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
                self._note(leaf.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        # torch keeps one Python object for a storage as long as the storage lives
        if id(storage) in self._alive:
            return
        self._alive.add(id(storage))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
