"""x Wᵀ in float32 on a CPU, by whichever of the two libraries that torch brings is the faster one there."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LEAST_OPERATIONS = 1e8
"""Of a product, for oneDNN, which makes a program for every new shape: 0.5 ms, in which MKL does so many."""
WHOLE = 128
"""Every size is a multiple of this for oneDNN. It keeps what it makes for a shape, up to 0.6 MB: 3,000
different numbers of rows left 1.1 GB behind, for which reason LoRA layers do not multiply by it."""
_PROCESSORS = Path("/proc/cpuinfo")


def linear_in(room: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The product x Wᵀ, without a gradient: in `room`, or in memory of its own, where oneDNN always puts it.

    MKL, which torch multiplies large float32 matrices with, does not get out of AMD's processors what is in
    them: on an EPYC of the Zen 4 generation (two cores) 512 rows times 1,024 of dimension 384 go at 142
    billion operations a second by it, and at 180 by oneDNN.

    Args:
        room: (rows, out).
        x: (rows, in).
        weight: (out, in), also a transposed view.
    """
    if _suits_onednn(x, weight):
        return onednn_linear(x, weight)
    return torch.mm(x, weight.T, out=room)


def onednn_linear(x: Tensor, weight: Tensor) -> Tensor:
    """The same by oneDNN. Knows no gradient; of float32 on a CPU, and not empty."""
    operation: Any = torch.ops.mkldnn._linear_pointwise
    return operation(x, weight, None, "none", [], "")


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    # With a tile of a wider matrix, transposed, as weight it takes minutes where MKL takes milliseconds.
    if x.stride(1) != 1 or not (weight.is_contiguous() or weight.T.is_contiguous()):
        return False
    if any(size % WHOLE for size in (*x.shape, len(weight))):
        return False
    return 2 * x.numel() * len(weight) >= LEAST_OPERATIONS and prefers_onednn()


@cache
def prefers_onednn() -> bool:
    """Whether this processor is an AMD one with AVX-512, and torch brings oneDNN."""
    if not torch.backends.mkldnn.is_available() or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    said = _PROCESSORS.read_text() if _PROCESSORS.exists() else platform.processor()
    return "AuthenticAMD" in said
