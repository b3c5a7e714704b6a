"""Tile sizes of the Triton kernels, by architecture and by what the kernel is asked to do.

The registers that are noted beside the tables were counted in the machine code that Triton 3.9 makes (bf16,
D = 768); none of these configurations spills. Their speed has not been measured.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

SHARED_MEMORY = {
    75: 64 << 10,
    80: 163 << 10,
    86: 99 << 10,
    89: 99 << 10,
    90: 227 << 10,
    100: 227 << 10,
    120: 99 << 10,
}
"""Bytes that one block may have, by compute capability (CUDA C++ Programming Guide)."""
LEAST_CAPABILITY = 80
"""Before compute capability 8.0, Triton (from 3.3 on) compiles no instruction for the tensor cores."""
WHOLE_BUFFERS = (90, 100)
"""Architectures whose pipeline of n stages holds n buffers; on the others, n - 1."""
AUTOTUNE_VARIABLE = "RETROFIT_KERNELS_AUTOTUNE"

Kind = Literal["plain", "masked", "guided", "nested", "exact", "exact nested"]
"""What decides about registers: no masks but positives; ids, groups, owners or a threshold; also a guide's
products; several prefixes; products of fp32 numbers in more than tf32, whatever else is wanted; products of
exact fp32 ("ieee") at several prefixes."""


@dataclass(frozen=True)
class StripConfig:
    """How a strip is cut into tiles.

    Attributes:
        block_m: rows of a tile.
        block_n: columns of a tile.
        block_k: dimensions multiplied per step.
        num_warps: warps per tile.
        num_stages: stages of the software pipeline.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    def shared_memory(self, capability: int, itemsize: int) -> int:
        """Bytes of shared memory that a block needs: the pipeline's buffers, or the tile on its way out."""
        buffers = self.num_stages - (0 if capability in WHOLE_BUFFERS else 1)
        operands = max(1, buffers) * (self.block_m + self.block_n) * self.block_k * itemsize
        return max(operands, self.block_m * self.block_n * itemsize) + 2048


# 16-bit operands.            rows columns dims warps stages
_LARGE = StripConfig(128, 256, 64, 8, 3)
_SQUARE = StripConfig(128, 128, 64, 8, 3)
_NARROW = StripConfig(128, 64, 64, 8, 3)
_UNKNOWN = StripConfig(64, 64, 32, 4, 1)
_EXACT = StripConfig(64, 64, 16, 8, 2)
# With 8 warps the plain kernel spills on sm_90 in exact fp32 at D = 768 (2 instructions), with 4 none does.
_EXACT_90 = StripConfig(64, 64, 16, 4, 2)
# In exact fp32 at several prefixes with all masks, _EXACT spills on sm_80, 90 and 100 (4 to 10 instructions),
# and on sm_80 so do halves of it with 8 warps (10). With 4 warps none does; but tf32x3 then needs a stack.
_EXACT_NESTED = StripConfig(32, 64, 16, 4, 2)

_TILES: dict[Kind, StripConfig] = {
    "plain": _SQUARE, "masked": _SQUARE, "guided": _SQUARE, "nested": _NARROW, "exact": _EXACT,
    "exact nested": _EXACT_NESTED,
}  # fmt: skip
# Registers of the plain kernel and of the heaviest of each kind, in machine code of Triton 3.9:
#            plain  masked  guided  nested
#   sm_80      174     220     206     208
#   sm_86/89   174     220     206     197
#   sm_90      255     221     221     195   plain: 128 x 256
#   sm_100     228     170     170     200   plain: 128 x 256, all others 128 x 64
#   sm_120     160     194     216     181
# A tile of 128 x 256 needs three quarters of a square tile's reads of L2 for each multiplication. On sm_90 it
# has room for ids with Triton 3.6 and 3.9, but 3.8 spills (41 instructions); with all masks, 3.9 does (10).
_TABLE: dict[int, dict[Kind, StripConfig]] = {
    80: _TILES,
    86: _TILES,
    89: _TILES,
    90: {**_TILES, "plain": _LARGE, "exact": _EXACT_90},
    # Triton 3.6 spills a square tile with masks here (20 instructions), 3.9 has 250 registers in use.
    100: {**_TILES, "plain": _LARGE, "masked": _NARROW, "guided": _NARROW},
    120: _TILES,
}
_TABLE_FP32: dict[int, dict[Kind, StripConfig]] = {
    # 94 instructions spill of 128 x 256 numbers in tf32; of a square tile, none (178 registers).
    100: {**_TABLE[100], "plain": _SQUARE},
}
"""Where fp32 takes other tiles than 16 bits."""


def strip_config(
    capability: int, dimension: int, itemsize: int, kind: Kind, aligned: bool = True
) -> StripConfig:
    """The tiles of a strip.

    Args:
        capability: compute capability, 90 for 9.0. One that the table does not know gets a small tile and no
            pipeline, which runs everywhere.
        dimension: of the embeddings.
        itemsize: bytes of a number in what is multiplied, 2 or 4: the larger, where a guide has another type.
        kind: what the kernel is asked to do.
        aligned: whether the rows of all matrices are multiples of 16 numbers apart. Where they are not,
            numbers are stored one by one, and their addresses take so many registers that larger tiles spill.

    Raises:
        ValueError: the capability is below 8.0.
    """
    if capability < LEAST_CAPABILITY:
        raise ValueError(
            f"capability must be at least {LEAST_CAPABILITY}, not {capability}: "
            f"Triton uses no tensor cores of older GPUs"
        )
    table = _TABLE | _TABLE_FP32 if itemsize == 4 else _TABLE
    config = table[capability][kind] if capability in table else _UNKNOWN
    if not aligned and config.block_m * config.block_n > _NARROW.block_m * _NARROW.block_n:
        config = _NARROW
    # The same bytes per step for fp32 as for 16 bits; no step longer than the embeddings are.
    block_k = min(max(16, config.block_k * 2 // itemsize), max(16, 1 << (dimension - 1).bit_length()))
    config = StripConfig(config.block_m, config.block_n, block_k, config.num_warps, config.num_stages)
    return config if fits(config, capability, itemsize) else _UNKNOWN


def fits(config: StripConfig, capability: int, itemsize: int) -> bool:
    """Whether a block's shared memory holds the tiles; an unknown GPU is taken to have the least, 99 KB."""
    return config.shared_memory(capability, itemsize) <= SHARED_MEMORY.get(capability, 99 << 10)


def candidates(capability: int, itemsize: int) -> list[StripConfig]:
    """Configurations that are worth timing on a GPU, those that do not fit left out."""
    tiles = [(128, 256), (256, 128), (128, 128), (128, 64), (64, 128), (64, 64)]
    tried = [
        StripConfig(rows, columns, 64 * 2 // itemsize, warps, stages)
        for rows, columns in tiles
        for warps in (4, 8)
        for stages in (2, 3, 4)
        if rows * columns <= 4096 * warps  # more than 128 sums per thread would spill
    ]
    return [config for config in tried if fits(config, capability, itemsize)]


def autotuning() -> bool:
    """Whether kernels are to be timed at their first use: ``RETROFIT_KERNELS_AUTOTUNE=1``."""
    return os.environ.get(AUTOTUNE_VARIABLE) == "1"
