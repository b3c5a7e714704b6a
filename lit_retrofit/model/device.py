"""Which device and which precision to compute in."""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.control_groups import left_in_groups

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What errors say that are of no class of their own: of the allocators, the driver and its libraries."""


def choose_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one; anything else is torch's name of a device.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"device {name} cannot be used ({reason}); use auto, cpu, cuda or cuda:0") from None
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16 products; emulated ones are slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch keeps these two questions private; without an answer fp32 is the safe choice.
    asked = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return device.type == "cpu" and any(question() for question in asked if question is not None)


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type to autocast to, or None for fp32. ``auto`` is bf16 where the device multiplies it."""
    if precision == "auto":
        precision = "bf16" if multiplies_bf16(device) else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def tokens_at_a_time(asked: int | None, device: torch.device) -> int:
    """Padded tokens of a micro-batch without a graph: what was asked for, or what the device works best with.

    A CPU slows down where a layer's output passes the 32 MB beyond which glibc gets new pages for every
    tensor: multilingual-e5-small embeds texts of 64 tokens 1.06 to 1.4 times as fast by 4096 as by 16384.
    """
    if asked is None:
        return 16384 if device.type == "cuda" else 4096
    return asked


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated: on the GPU, or of the machine's memory and its control groups'."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    return int(min(psutil.virtual_memory().available, left_in_groups()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where torch has no error of its own for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(told in str(error) for told in _OUT_OF_MEMORY)
