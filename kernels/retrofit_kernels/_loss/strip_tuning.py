"""Tiles found by timing, instead of those of the table."""

from __future__ import annotations

from functools import cache
from typing import Any

import triton

from retrofit_kernels._loss.strip_kernel import strip
from retrofit_kernels._loss.strip_masks import largest_item
from retrofit_kernels._shared.backend import capability
from retrofit_kernels.configs import StripConfig, candidates

KEY = ("PREFIXES", "GUIDE_DIMENSION", "PRECISION", "USED")
"""What else tells kernels apart, beside the types of their tensors."""
TUNED_SLOT = 64
"""Columns per slot of the partial sums while the tile's width is being tuned: the least width."""


@cache
def tuned_strip() -> Any:
    """The kernel that is timed at its first use with each set of dtypes, dimensions, masks and precision."""
    tried = {config for itemsize in (2, 4) for config in candidates(90, itemsize)}
    configs = [
        triton.Config(
            {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k},
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
        for config in sorted(tried, key=str)
    ]
    prune = {"early_config_prune": fitting}
    return triton.autotune(configs, list(KEY), prune_configs_by=prune, cache_results=True)(strip)


def fitting(configs: list[Any], arguments: dict[str, Any], **_: Any) -> list[Any]:
    """The configurations that the GPU has the shared memory for."""
    rows = arguments["rows"]
    itemsize = largest_item(rows, arguments["guide_rows"])
    tiles = set(candidates(capability(rows.device), itemsize))
    return [config for config in configs if _tile(config) in tiles]


def _tile(config: Any) -> StripConfig:
    sizes = config.kwargs
    return StripConfig(
        sizes["BLOCK_M"], sizes["BLOCK_N"], sizes["BLOCK_K"], config.num_warps, config.num_stages
    )
