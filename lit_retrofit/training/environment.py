"""What a run was made with: versions, machine, code."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from lit_retrofit.training.code_version import code_version

_PACKAGES = ("torch", "lightning", "transformers", "peft")


def environment(device: torch.device, devices: int) -> dict[str, Any]:
    """Versions and machine, in plain types.

    Args:
        device: of this process.
        devices: of all processes.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "devices": devices,
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        **code_version(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
