"""How many blocks of a kernel fit on a multiprocessor at a time, from what the compiler says it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REGISTERS = 65536
"""32-bit registers of a multiprocessor, the same from compute capability 7.5 to 12.0."""
REGISTER_UNIT = 256
"""Registers are handed to a warp in units of this many."""
MAX_REGISTERS = 255


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one compute capability (CUDA C++ Programming Guide, technical specifications).

    Attributes:
        warps: resident at a time.
        blocks: resident at a time.
        shared: memory for all resident blocks, in bytes.
        shared_per_block: memory that one block may ask for, in bytes.
        reserved: shared memory that the system takes for each block, in bytes.
    """

    warps: int
    blocks: int
    shared: int
    shared_per_block: int
    reserved: int


_KIB = 1024
MULTIPROCESSORS = {
    (7, 5): Multiprocessor(32, 16, 64 * _KIB, 64 * _KIB, 0),
    (8, 0): Multiprocessor(64, 32, 164 * _KIB, 163 * _KIB, _KIB),
    (8, 6): Multiprocessor(48, 16, 100 * _KIB, 99 * _KIB, _KIB),
    (8, 9): Multiprocessor(48, 24, 100 * _KIB, 99 * _KIB, _KIB),
    (9, 0): Multiprocessor(64, 32, 228 * _KIB, 227 * _KIB, _KIB),
    (10, 0): Multiprocessor(64, 32, 228 * _KIB, 227 * _KIB, _KIB),
    (12, 0): Multiprocessor(48, 24, 100 * _KIB, 99 * _KIB, _KIB),
}


@dataclass(frozen=True)
class Occupancy:
    """How a kernel fills a multiprocessor.

    Attributes:
        blocks: resident at a time; 0 if one block does not fit at all.
        share: resident warps of the possible ones.
        limited_by: what is used up first.
    """

    blocks: int
    share: float
    limited_by: Literal["registers", "shared memory", "warps", "blocks"]


def occupancy(registers: int, shared: int, warps: int, capability: tuple[int, int]) -> Occupancy:
    """Resident blocks of a kernel.

    Args:
        registers: per thread, 1 … 255.
        shared: bytes of shared memory per block.
        warps: per block.
        capability: compute capability, a key of `MULTIPROCESSORS`.

    Raises:
        ValueError: an unknown capability or a number out of range.
    """
    if capability not in MULTIPROCESSORS:
        known = ", ".join(f"{major}.{minor}" for major, minor in MULTIPROCESSORS)
        raise ValueError(f"capability must be one of {known}, not {capability!r}")
    if not 1 <= registers <= MAX_REGISTERS:
        raise ValueError(f"registers must be from 1 to {MAX_REGISTERS} per thread, not {registers}")
    if warps < 1 or shared < 0:
        raise ValueError(f"warps must be at least 1 and shared at least 0, not {warps} and {shared}")
    limits = MULTIPROCESSORS[capability]
    per_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    fits = shared <= limits.shared_per_block
    blocks = {
        "registers": REGISTERS // per_warp // warps,
        "shared memory": limits.shared // max(1, shared + limits.reserved) if fits else 0,
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
    }
    limit = min(blocks, key=lambda name: blocks[name])
    return Occupancy(blocks[limit], blocks[limit] * warps / limits.warps, limit)  # type: ignore[arg-type]
