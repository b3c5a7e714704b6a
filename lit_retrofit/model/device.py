"""Which device and which precision to compute in."""

from __future__ import annotations

from typing import Literal

import torch

from lit_retrofit.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


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
