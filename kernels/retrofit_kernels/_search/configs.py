"""Tile sizes of the nearest-neighbour kernels for each GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from retrofit_kernels.configs import SHARED_MEMORY


@dataclass(frozen=True)
class LaneBinConfig:
    """How `lane_bins` is launched.

    Attributes:
        rows: queries in a tile.
        columns: documents in a tile.
        depth: dimensions that are multiplied at a time.
        warps: warps of a block.
        stages: stages of the pipeline of loads.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    def shared_bytes(self, itemsize: int) -> int:
        """Shared memory of the operands in flight."""
        return self.stages * (self.rows + self.columns) * self.depth * itemsize


UNKNOWN = LaneBinConfig(rows=32, columns=32, depth=32, warps=4, stages=1)
"""For a GPU that nobody has checked, and for the interpreter."""


def lane_bin_config(capability: tuple[int, int] | None, itemsize: int, dimension: int) -> LaneBinConfig:
    """The tile for a GPU.

    64 × 128 scores, and as many bins for each of up to three ranks, are what 8 warps hold in registers
    without spilling (*measured* ahead of time: at most 254 registers). The loads of a step take 24 KiB,
    whatever the type; the stages are as many as fit into the shared memory of a block, at most four, and
    no more than the dimension has steps. Where the last step is not a whole one, its masks take so many
    registers that 64 rows spill (*measured*: 58 to 120 instructions on every architecture); then it is 32.

    Args:
        capability: compute capability, None for the interpreter.
        itemsize: bytes of an element, 2 or 4.
        dimension: of the embeddings.
    """
    budget = None if capability is None else SHARED_MEMORY.get(10 * capability[0] + capability[1])
    if budget is None:
        return UNKNOWN
    depth = 128 // itemsize
    stages = min(4, max(1, -(-dimension // depth)))
    rows = 32 if dimension % depth else 64
    config = LaneBinConfig(rows=rows, columns=128, depth=depth, warps=8, stages=stages)
    while config.shared_bytes(itemsize) > budget:
        config = replace(config, stages=config.stages - 1)
    return config
