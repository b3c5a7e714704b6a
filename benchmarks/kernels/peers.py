"""What every peer says of itself, and why one is not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks.kernels.shapes import Shape

HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Peer:
    """One implementation.

    Attributes:
        name: key in the results.
        title: in tables.
        load: imports it and makes the function that is measured.
        needs: bytes that it takes beside its inputs, for a shape and the bytes of one number: a prediction
            with which too large problems are left out.
        module: that must be installed, or None.
        cuda_only: whether it runs on NVIDIA GPUs alone.
        cpu_only: whether it has no use for one.
        dtypes: that it takes.
        compiled: whether its first call compiles for the shape.
        limit: whether it is a bound and computes no result.
        normalises: whether it makes unit vectors itself, so that its gradients lie in their tangent spaces.
        exact: whether it finds all that the problem asks for.
    """

    name: str
    title: str
    load: Callable[[], Any]
    needs: Callable[[Shape, int], int]
    module: str | None = None
    cuda_only: bool = False
    cpu_only: bool = False
    dtypes: tuple[str, ...] = ("float32", *HALVES)
    compiled: bool = False
    limit: bool = False
    normalises: bool = False
    exact: bool = True

    def unavailable(self, device: str, dtype: str) -> str | None:
        """Why it does not run at all, or None."""
        if self.cuda_only and device != "cuda":
            return "not run: needs CUDA"
        if self.cpu_only and device != "cpu":
            return "not run: runs on the CPU"
        if self.module is not None and not _installed(self.module):
            return f"not run: {self.module} is not installed"
        if dtype not in self.dtypes:
            return f"not run: takes {' and '.join(self.dtypes)} only"
        return None

    def too_large(self, shape: Shape, size: int, available: int) -> str | None:
        """Why it does not run on a shape, or None."""
        needed = self.needs(shape, size)
        if needed > available:
            return f"skipped: would take about {needed / 1e9:.0f} GB, {available / 1e9:.0f} GB are free"
        return None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
