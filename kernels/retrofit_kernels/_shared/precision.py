"""How torch multiplies fp32 while loss and search work, whatever is allowed to the model around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def own_precision(*, tf32_on_gpu: bool = False) -> Iterator[None]:
    """Products of fp32 in fp32, whatever ``torch.set_float32_matmul_precision`` allows to the model.

    Args:
        tf32_on_gpu: tf32 instead, on a GPU.
    """
    libraries = (torch.backends.cuda, torch.backends.mkldnn)
    backends: list[Any] = [getattr(library, "matmul", None) for library in libraries]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch 2.8
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if tf32_on_gpu else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    allowed = [backend.fp32_precision for backend in backends]
    for backend, precision in zip(backends, ("tf32" if tf32_on_gpu else "ieee", "ieee"), strict=True):
        backend.fp32_precision = precision
    try:
        yield
    finally:
        for backend, precision in zip(backends, allowed, strict=True):
            backend.fp32_precision = precision
