"""Embeddings and gradients that all kernel tests need."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch
from retrofit_kernels._loss import operation
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def embeddings() -> Callable[..., Tensor]:
    """Random unit vectors, made by ``embeddings(rows, dimension, seed, dtype)``."""

    def make(rows: int, dimension: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(rows, dimension, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(vectors, dim=1).to(dtype)

    return make


@pytest.fixture
def gradients() -> Callable[..., list[Tensor]]:
    """A function's value and gradients, found by ``gradients(function, *operands)``."""

    def differentiate(function: Callable[..., Tensor], *operands: Tensor) -> list[Tensor]:
        leaves = [operand.detach().clone().requires_grad_() for operand in operands]
        loss = function(*leaves)
        weights = torch.linspace(-1, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
        return [loss.detach(), *torch.autograd.grad(loss, leaves, weights if loss.dim() else None)]

    return differentiate


@pytest.fixture
def flops() -> Callable[[], AbstractContextManager[Callable[[], int]]]:
    """Counts the matrix products inside the operation, of which the counter otherwise sees only the whole."""

    @contextmanager
    def counted() -> Iterator[Callable[[], int]]:
        counters = []

        def contrast(*arguments):
            counters.append(FlopCounterMode(display=False))
            with counters[-1]:
                return original(*arguments)

        original = operation.contrast
        with mock.patch.object(operation, "contrast", contrast):
            yield lambda: sum(counter.get_total_flops() for counter in counters)

    return counted


@pytest.fixture(scope="session")
def option_cases() -> ModuleType:
    """The module with every option's values, for cases that run elsewhere too."""
    path = Path(__file__).with_name("test_contrastive_options.py")
    spec = importlib.util.spec_from_file_location("option_cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
