"""Triton code of strips of exponentials; `_loss.strip_triton` launches it. Imports no torch.

Names in capitals are compile-time constants. An argument that is None switches off what it is for, and then
costs nothing.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LEFT_OUT = tl.constexpr(-1e30)
"""Where the sum of products starts for a pair that is left out: nothing can bring it back, its exponential is
0. So masks need no registers while the products are added up, and are made once for all prefixes."""
SURELY_KEPT = tl.constexpr(-1e29)
NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def _accumulate(
    sums, rows, columns, wanted,
    BEGIN: tl.constexpr, END: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``sums + rows[:, BEGIN:END] @ columns[:, BEGIN:END].T`` unless `wanted` is 0; from pointers."""
    inner = tl.arange(0, BLOCK_K)
    for begin in range(BEGIN, END if wanted is None else BEGIN + wanted * (END - BEGIN), BLOCK_K):
        left = rows[:, None] + (begin + inner)[None, :]
        right = columns[None, :] + (begin + inner)[:, None]
        if (END - BEGIN) % BLOCK_K == 0:
            sums = tl.dot(tl.load(left), tl.load(right), sums, input_precision=PRECISION)
        else:
            inside = begin + inner < END
            left_tile = tl.load(left, mask=inside[None, :], other=0.0)
            right_tile = tl.load(right, mask=inside[:, None], other=0.0)
            sums = tl.dot(left_tile, right_tile, sums, input_precision=PRECISION)
    return sums


@triton.constexpr_function
def _first(prefixes, number):
    """First dimension that a prefix adds to the one before."""
    return prefixes[number - 1] if number > 0 else 0


@triton.jit
def _leave_out(
    sums, row, column, in_columns, held_out, row_ids, column_ids, row_groups, column_groups, owner, owners,
    held_out_count, row_id_count, column_id_count,
):  # fmt: skip
    """Put `LEFT_OUT` where one of the masks that need no similarity says so.

    They come after the first products, not before, because the sums are then in the registers that the tensor
    cores left them in: before, the compiler moves the tile through shared memory. Columns are read unclamped,
    because a run of addresses needs no registers; 32 single ones need 64 of them, and spill. The loops are
    not unrolled: the numbers of ids vary with the batch.
    """
    sums = tl.where(in_columns[None, :], sums, LEFT_OUT)
    for i in range(held_out_count):
        own = tl.load(held_out + row * held_out_count + i)
        sums = tl.where(own[:, None] == column[None, :], LEFT_OUT, sums)
    if row_ids is not None:
        for j in range(column_id_count):
            place = column.to(tl.int64) * column_id_count + j
            column_id = tl.load(column_ids + place, mask=in_columns, other=0)
            for i in range(row_id_count):
                row_id = tl.load(row_ids + row * row_id_count + i)
                sums = tl.where(row_id[:, None] == column_id[None, :], LEFT_OUT, sums)
    if row_groups is not None:
        column_group = tl.load(column_groups + column, mask=in_columns, other=0)
        sums = tl.where(tl.load(row_groups + row)[:, None] == column_group[None, :], sums, LEFT_OUT)
    if owner is not None:
        sees = tl.load(owners + column, mask=in_columns, other=-1)
        own = tl.load(owner + row)
        sums = tl.where((own[:, None] == sees[None, :]) | (sees == -1)[None, :], sums, LEFT_OUT)
    return sums


@triton.jit
def _store(target, values, row, row_count, tile, tile_count, SLOTS: tl.constexpr, REST: tl.constexpr):
    """Store a tile's value of each row in the first of its `SLOTS` rows of (tile_count, R), else `REST`."""
    for slot in tl.static_range(SLOTS):
        place = tile * SLOTS + slot
        stored = values if slot == 0 else tl.full(values.shape, REST, values.dtype)
        end = tl.where(place < tile_count, row_count, 0)
        tl.store(target + place.to(tl.int64) * row_count + row, stored, mask=row < end)


@triton.jit
def strip(
    rows, columns, gain, offsets, entries, totals, largest, counts,
    held_out, row_ids, column_ids, row_groups, column_groups, owner, owners,
    thresholds, guide_rows, guide_columns, guide_thresholds, row_norms, column_norms, needed,
    row_count, column_count, row_stride, column_stride, guide_row_stride, guide_column_stride,
    entries_prefix_stride, entries_row_stride, entries_width, tile_count,
    held_out_count, row_id_count, column_id_count,
    PREFIXES: tl.constexpr, GUIDE_DIMENSION: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, SLOT: tl.constexpr, USED: tl.constexpr,
):  # fmt: skip
    """One tile of ``kept ? exp(gain · similarity - offset) : 0`` at each of M nested prefixes.

    With `offsets` None the row maxima of gain · similarity are found instead, -inf where nothing is kept, for
    row tiles with a `needed` row only; other row tiles leave `largest` as it is.

    Args:
        rows: (R, D).
        columns: (N, D).
        gain: 0-d.
        offsets: (M, R) in nats, or None.
        entries: (M, R, N), written, or None if the sums are enough.
        totals: (M, T, R), written: sums of each row over each column tile. None without offsets.
        largest: (M, T, R), written: largest of each row in each column tile.
        counts: (T, R) int32, written: kept columns, in the last prefix; or None.
        held_out: (R, H) int32, columns left out.
        row_ids: (R, P) int32, or None.
        column_ids: (N, Q) int32; a pair with an equal id is left out.
        row_groups: (R,) int32, or None.
        column_groups: (N,) int32; pairs of unequal groups are left out.
        owner: (R,) int32, or None.
        owners: (N,) int32; a pair is left out unless they are equal or that of the column is -1.
        thresholds: (M, R); pairs of a similarity above it are left out. Or None.
        guide_rows: (R, G), or None.
        guide_columns: (N, G).
        guide_thresholds: (R,); pairs of a guide similarity above it are left out.
        row_norms: (M, R) factors of the products, or None.
        column_norms: (M, N).
        needed: (R,) int8; without offsets only.
        row_count: R.
        column_count: N.
        row_stride: elements between rows of `rows`, and so on.
        column_stride: of `columns`.
        guide_row_stride: of `guide_rows`.
        guide_column_stride: of `guide_columns`.
        entries_prefix_stride: between prefixes of `entries`.
        entries_row_stride: between rows of `entries`.
        entries_width: N, or more where there is room between the rows of `entries`, which is filled with 0: a
            multiple of 16 lets the compiler store 8 numbers at a time.
        tile_count: T, slots for column tiles: ``cdiv(N, SLOT)``.
        held_out_count: H.
        row_id_count: P.
        column_id_count: Q.
        PREFIXES: M ascending dimensions, the last of which is D.
        GUIDE_DIMENSION: G.
        PRECISION: how fp32 is multiplied.
        BLOCK_M: rows of a tile.
        BLOCK_N: columns of a tile.
        BLOCK_K: dimensions per step.
        GROUP: row tiles that share the column tiles in L2.
        SLOT: columns per slot of the partial sums; BLOCK_N, or a divisor when BLOCK_N is being tuned.
        USED: a digit for each argument, 1 for a tensor; tuning tells kernels with other masks apart by it.
    """
    row_tiles, column_tiles = tl.cdiv(row_count, BLOCK_M), tl.cdiv(column_count, BLOCK_N)
    group = tl.program_id(0) // (GROUP * column_tiles) * GROUP
    within = tl.program_id(0) % (GROUP * column_tiles)
    height = tl.minimum(row_tiles - group, GROUP)
    row_tile, column_tile = group + within % height, within // height
    row = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    column = column_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    in_columns = column < column_count
    # What lies outside reads the last row or column, so that no load of the products needs a mask for it.
    near_row = tl.minimum(row, row_count - 1).to(tl.int64)
    near_column = tl.minimum(column, column_count - 1).to(tl.int64)
    if offsets is None and tl.max(tl.load(needed + near_row).to(tl.int32), 0) == 0:
        return

    wanted = None
    if row_groups is not None:
        # Where the ranges do not meet, all pairs are left out anyhow: the products would change nothing.
        row_group, column_group = tl.load(row_groups + near_row), tl.load(column_groups + near_column)
        above = tl.max(row_group, 0) >= tl.min(column_group, 0)
        wanted = (above & (tl.max(column_group, 0) >= tl.min(row_group, 0))).to(tl.int32)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if guide_rows is not None:
        left = guide_rows + near_row * guide_row_stride
        right = guide_columns + near_column * guide_column_stride
        sums = _accumulate(sums, left, right, wanted, 0, GUIDE_DIMENSION, BLOCK_K, PRECISION)
        sums = tl.where(sums > tl.load(guide_thresholds + near_row)[:, None], LEFT_OUT, 0.0)

    factor = tl.load(gain)
    left, right = rows + near_row * row_stride, columns + near_column * column_stride
    SLOTS: tl.constexpr = BLOCK_N // SLOT
    for prefix in tl.static_range(len(PREFIXES)):
        first = _first(PREFIXES, prefix)
        sums = _accumulate(sums, left, right, wanted, first, PREFIXES[prefix], BLOCK_K, PRECISION)
        if prefix == 0:
            sums = _leave_out(
                sums, near_row, column, in_columns, held_out, row_ids, column_ids, row_groups, column_groups,
                owner, owners, held_out_count, row_id_count, column_id_count,
            )  # fmt: skip
        similarity, left_out = sums, sums < SURELY_KEPT
        if row_norms is not None:
            norms = column_norms + prefix * tl.cast(column_count, tl.int64)
            column_norm = tl.load(norms + column, mask=in_columns, other=1.0)
            row_norm = tl.load(row_norms + prefix * row_count + near_row)
            similarity = sums * row_norm[:, None] * column_norm[None, :]
        if thresholds is not None:
            threshold = tl.load(thresholds + prefix * row_count + near_row)
            left_out |= similarity > threshold[:, None]
            similarity = tl.where(left_out, LEFT_OUT, similarity)
        part = prefix * tl.cast(tile_count, tl.int64) * row_count
        if offsets is None:
            logit = tl.where(left_out, NOTHING, similarity * factor)
            highest = tl.max(logit, 1)
            _store(largest + part, highest, row, row_count, column_tile, tile_count, SLOTS, NOTHING)
        else:
            offset = tl.load(offsets + prefix * row_count + near_row) * LOG2_E
            exponential = tl.exp2(similarity * (factor * LOG2_E) - offset[:, None])
            if entries is not None:
                inside = (row < row_count)[:, None] & (column < entries_width)[None, :]
                target = entries + prefix * tl.cast(entries_prefix_stride, tl.int64)
                target += row.to(tl.int64)[:, None] * entries_row_stride + column[None, :]
                tl.store(target, exponential.to(entries.dtype.element_ty), mask=inside)
            total, highest = tl.sum(exponential, 1), tl.max(exponential, 1)
            _store(totals + part, total, row, row_count, column_tile, tile_count, SLOTS, 0.0)
            _store(largest + part, highest, row, row_count, column_tile, tile_count, SLOTS, 0.0)
        if counts is not None and prefix == len(PREFIXES) - 1:
            count = tl.sum((left_out == 0).to(tl.int32), 1)
            _store(counts, count, row, row_count, column_tile, tile_count, SLOTS, 0)
