"""Which implementation a tensor is worked on with."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from retrofit_kernels._shared.checks import describe
from retrofit_kernels.configs import LEAST_CAPABILITY


def capability(device: torch.device) -> int:
    """Compute capability of a GPU, 90 for 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def interpreting() -> bool:
    """Whether Triton's interpreter stands in for a GPU, on tensors of the CPU (for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def takes_triton(tensor: Tensor) -> bool:
    """Whether Triton's kernels are the way for this tensor: a recent NVIDIA GPU, and not fp64."""
    return tensor.device.type == "cuda" and why_not_triton(tensor) is None


def why_not_triton(tensor: Tensor) -> str | None:
    """What Triton's kernels would need that this tensor, its device or the installation has not."""
    if find_spec("triton") is None:
        return "the package triton, which is not installed"
    if tensor.dtype == torch.float64:
        return f"fp16, bf16 or fp32, not {describe(tensor)}"
    if tensor.device.type == "cpu" and interpreting():
        return None
    if tensor.device.type != "cuda" or torch.version.hip is not None:
        return f"an NVIDIA GPU, not {describe(tensor)}"
    found = capability(tensor.device)
    if found < LEAST_CAPABILITY:
        return f"compute capability {LEAST_CAPABILITY / 10} or more, not {found / 10}"
    return None
