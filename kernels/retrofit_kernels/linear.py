"""x Wᵀ in float32 on a CPU, by whichever of the two libraries that torch brings is the faster one there."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_OPERATIONS = 1e8
"""Of a product, for oneDNN, which makes a program for every new shape: 0.5 ms, in which MKL does so many."""
_PROCESSORS = Path("/proc/cpuinfo")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
    """The product x Wᵀ + b, like torch's `linear`, and something added to it.

    MKL, which torch multiplies large float32 matrices with, does not get out of AMD's processors what is in
    them. On an EPYC of the Zen 4 generation (two cores; billions of operations a second, MKL's first) 3,700
    rows times 384 by 1536 run at 183 and 209, times 1536 by 384 at 178 and 217; 512 rows times 1,024 of
    dimension 384 at 142 and 180. There oneDNN does it where no gradient is asked for; everywhere else torch's
    own choice stands.

    Args:
        x: (…, in).
        weight: (out, in), also a transposed view.
        bias: (out,).
        plus: (…, out), left as it is.

    Returns:
        (…, out), in memory of its own.
    """
    if _suits_onednn(x, weight, bias, plus):
        return onednn_linear(x, weight, bias, plus)
    if plus is None:
        return F.linear(x, weight, bias)
    product = torch.addmm(plus.flatten(0, -2), x.flatten(0, -2), weight.T).view(plus.shape)
    return product if bias is None else product.add_(bias)


def linear_in(room: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The product x Wᵀ without a gradient: in `room`, or in memory of its own, where oneDNN always puts it.

    Args:
        room: (rows, out).
        x: (rows, in).
        weight: (out, in).
    """
    if _suits_onednn(x, weight):
        return onednn_linear(x, weight)
    return torch.mm(x, weight.T, out=room)


def onednn_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None
) -> Tensor:
    """The same by oneDNN. Knows no gradient; of float32 on a CPU, and not empty."""
    operation: Any = torch.ops.mkldnn._linear_pointwise
    if plus is None:
        return operation(x, weight, bias, "none", [], "")
    return operation.binary(x, plus, weight, bias, "add")


def _suits_onednn(x: Tensor, weight: Tensor, *others: Tensor | None) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    tensors = [x, weight, *(other for other in others if other is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    if any(tensor.dtype != torch.float32 for tensor in tensors) or torch.is_autocast_enabled("cpu"):
        return False
    if not (x.is_contiguous() or (x.dim() == 2 and x.stride(1) == 1)):
        return False
    # With a tile of a wider matrix, transposed, as weight it takes minutes where MKL takes milliseconds.
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        return False
    return 2 * x.numel() * weight.shape[0] >= LEAST_OPERATIONS and prefers_onednn()


@cache
def prefers_onednn() -> bool:
    """Whether this processor is an AMD one with AVX-512, and torch brings oneDNN."""
    if not torch.backends.mkldnn.is_available() or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    said = _PROCESSORS.read_text() if _PROCESSORS.exists() else platform.processor()
    return "AuthenticAMD" in said
