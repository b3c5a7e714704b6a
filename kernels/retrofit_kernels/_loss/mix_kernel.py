"""Triton code that mixes the prefixes' exponentials; `_loss.strip_triton` launches it. Imports no torch."""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def mix(
    entries, factors, offsets, gain, row_norms, column_norms, by_row, by_column,
    prefix_count, row_count, column_count, prefix_stride, row_stride,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One tile of: what each segment of the dimensions is multiplied with in the gradients, in place.

    ``entries[k]`` becomes ``Σ_{m ≥ k} factor · exponential · row norm · column norm``. The similarities are
    recovered from the exponentials.

    Args:
        entries: (M, R, N) exponentials.
        factors: (M, R).
        offsets: (M, R) in nats.
        gain: 0-d.
        row_norms: (M, R).
        column_norms: (M, N).
        by_row: (M, T, R), written: sums of factor · exponential · similarity over each of T column tiles.
        by_column: (M, U, N), written: the sums over each of U row tiles.
        prefix_count: M.
        row_count: R.
        column_count: N.
        prefix_stride: elements between prefixes of `entries`.
        row_stride: elements between rows of `entries`.
        BLOCK_M: rows of a tile.
        BLOCK_N: columns of a tile.
    """
    row_tile, column_tile = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    row = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    column = column_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows, in_columns = row < row_count, column < column_count
    inside = in_rows[:, None] & in_columns[None, :]
    factor_of_similarity = 1.0 / tl.load(gain)
    mixed = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(prefix_count):
        prefix = (prefix_count - 1 - step).to(tl.int64)
        target = entries + prefix * prefix_stride + row[:, None] * row_stride + column[None, :]
        exponential = tl.load(target, mask=inside, other=0.0).to(tl.float32)
        places, others = prefix * row_count + row, prefix * column_count + column
        offset = tl.load(offsets + places, mask=in_rows, other=0.0)
        weighted = exponential * tl.load(factors + places, mask=in_rows, other=0.0)[:, None]
        logit = tl.log2(tl.where(exponential > 0, exponential, 1.0)) * LN_2 + offset[:, None]
        moment = weighted * logit * factor_of_similarity
        to_row = by_row + (prefix * tl.num_programs(0) + column_tile) * row_count + row
        tl.store(to_row, tl.sum(moment, 1), in_rows)
        to_column = by_column + (prefix * tl.num_programs(1) + row_tile) * column_count + column
        tl.store(to_column, tl.sum(moment, 0), in_columns)
        row_norm = tl.load(row_norms + places, mask=in_rows, other=0.0)
        column_norm = tl.load(column_norms + others, mask=in_columns, other=0.0)
        mixed += weighted * row_norm[:, None] * column_norm[None, :]
        tl.store(target, mixed.to(entries.dtype.element_ty), mask=inside)
