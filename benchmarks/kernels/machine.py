"""What the figures were measured on, and what fits there."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "torch",
    "triton",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "sentence-transformers",
    "liger-kernel",
    "cut-cross-entropy",
    "quack-kernels",
    "inf-cl",
    "flashlib",
    "cuvs-cu12",
)


def choose_device(wanted: str) -> str:
    """The device of "auto": a GPU if there is one."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here")
    return wanted


def describe(device: str, threads: int) -> dict[str, str | int]:
    """Names of processor, GPU and versions, for the results."""
    found: dict[str, str | int] = {"device": device, "processor": _processor(), "threads": threads}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def available_bytes(device: str) -> int:
    """Memory that a measurement may take: nine tenths of what is free."""
    if device == "cuda":
        return int(0.9 * torch.cuda.mem_get_info()[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if match:
            return int(0.9 * 1024 * int(match[1]))
    return int(0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        if match:
            return f"{match[1]}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
