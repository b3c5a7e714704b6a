"""Launches the kernels of the nearest-neighbour search, and reads the packed scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retrofit_kernels._search.bins import EMPTY, LAST_TILE, TILE_BITS, lane_bins, rescore
from retrofit_kernels._search.configs import LaneBinConfig
from retrofit_kernels._search.pool import Chunk, Pool

MOST_TILES: int = LAST_TILE.value
"""Tiles per split that the low bits can name; 0 names none."""
LOW_BITS: int = (1 << TILE_BITS.value) - 1
RESCORED = 8
"""Candidates of a row per block of `rescore`, × 128 dimensions at a time, in 4 warps: 8 products per thread.
*Measured* ahead of time: 16 and 32 candidates spill on sm_120 with one version of Triton or another."""
RESCORED_DEPTH = 128
MOST_BLOCKS = 65535
"""On the second axis of a grid."""
INT32 = torch.iinfo(torch.int32)


@dataclass(frozen=True, eq=False)
class PreparedQueries:
    """What the kernels read of the queries.

    Attributes:
        pool: queries, contiguous, in the type that they are multiplied in, and the exclusions for torch.
        ids: (Q, P) int32, each row's own first, or None.
        id_counts: (Q,) int32 how many these are, or None.
        norms: (Q,) fp32.
        strip_bytes: memory budget.
        certified: exact mode.
        config: of the lane bins.
    """

    pool: Pool
    ids: Tensor | None
    id_counts: Tensor | None
    norms: Tensor
    strip_bytes: int
    certified: bool
    config: LaneBinConfig


def kept_in_bins(
    queries: PreparedQueries, rows: slice, part: Chunk, floor: Tensor, margin: Tensor, splits: int
) -> tuple[Tensor, Tensor | None]:
    """(R, slots) packed scores, twice as many if certified; and (R, splits) what was lost, or None."""
    config, pool = queries.config, queries.pool
    vectors, (documents, dimension) = pool.queries[rows], part.vectors.shape
    ranks = 2 if queries.certified else 1
    slots = splits * config.columns
    kept = torch.empty((ranks, len(vectors), slots), dtype=torch.int32, device=vectors.device)
    lost = kept.new_empty((len(vectors), splits)) if queries.certified else None
    ceiling = None
    if pool.ceiling is not None:  # the exact cap comes after the exact scores
        ceiling = (pool.ceiling[rows].float() + margin.squeeze(1)).contiguous()
    ids = None if queries.ids is None else queries.ids[rows]
    lane_bins[(-(-len(vectors) // config.rows), splits)](
        vectors,
        part.vectors,
        ids,
        None if queries.id_counts is None else queries.id_counts[rows],
        None if ids is None else part.ids,
        ceiling,
        packed_floor(floor),
        kept[0],
        kept[1] if queries.certified else None,
        lost,
        len(vectors),
        documents,
        dimension,
        part.vectors.stride(0),
        0 if ids is None else ids.shape[1],
        -(-documents // slots),
        splits,
        IDS=ids is not None,
        CEILING=ceiling is not None,
        CERTIFIED=queries.certified,
        EVEN=dimension % config.depth == 0,
        BLOCK_M=config.rows,
        BLOCK_N=config.columns,
        BLOCK_D=config.depth,
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )
    return kept.transpose(0, 1).flatten(1), lost


def exact_scores(queries: Tensor, vectors: Tensor, columns: Tensor) -> Tensor:
    """(R, c) exact scores of each query with its columns."""
    if columns.shape[1] > MOST_BLOCKS * RESCORED:
        parts = columns.split(MOST_BLOCKS * RESCORED, dim=1)
        return torch.cat([exact_scores(queries, vectors, part.contiguous()) for part in parts], dim=1)
    scores = torch.empty(columns.shape, dtype=torch.float32, device=columns.device)
    rescore[(len(columns), -(-columns.shape[1] // RESCORED))](
        queries,
        vectors,
        columns,
        scores,
        vectors.shape[1],
        vectors.stride(0),
        columns.shape[1],
        EVEN=vectors.shape[1] % RESCORED_DEPTH == 0,
        BLOCK_C=RESCORED,
        BLOCK_D=RESCORED_DEPTH,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return scores


def packed_floor(scores: Tensor) -> Tensor:
    """(R, 1) scores as `lane_bins` packs them, of no tile; EMPTY for -inf."""
    bits = _ordered(scores.float().contiguous().view(torch.int32))
    return (bits & ~LOW_BITS).masked_fill(scores == -torch.inf, EMPTY.value)


def upper(packed: Tensor) -> Tensor:
    """The largest score that could have been packed so."""
    return _ordered(packed | LOW_BITS).view(torch.float32)


def _ordered(bits: Tensor) -> Tensor:
    """Bits of fp32 to integers of the same order, and back."""
    return bits ^ ((bits >> 31) & INT32.max)
