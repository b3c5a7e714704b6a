"""Triton code of the nearest-neighbour search: lane bins, and the exact scores of what they kept."""

# mypy: disallow-untyped-defs=False
import triton
import triton.language as tl

TILE_BITS = tl.constexpr(12)
"""Low bits of a score that name the tile it came from. What is left of an fp32 score has a relative precision
of 2^-11; the exact score decides later."""
LAST_TILE = tl.constexpr(4095)
EMPTY = tl.constexpr(-2147483648)
"""A bin without a document: below every packed score, and like every floor without a tile in its low bits."""


@triton.jit
def lane_bins(
    queries,  # (rows, dimension)
    documents,  # (columns, dimension)
    query_ids,  # (rows, ids) int32, the ids of a row first, padding last
    id_counts,  # (rows,) int32
    document_ids,  # (columns,) int32
    ceiling,  # (rows,) fp32
    floor,  # (rows,) int32, packed score that a document must exceed
    best,  # (rows, splits * BLOCK_N) int32
    second,  # like best
    lost,  # (rows, splits) int32, best packed score that was not kept
    rows,
    columns,
    dimension,
    stride,  # from one document to the next
    ids,
    tiles,  # per split
    splits,
    IDS: tl.constexpr,
    CEILING: tl.constexpr,
    CERTIFIED: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Each (row, slot) keeps its best document; slot = column modulo splits * BLOCK_N.

    Certified, it keeps the two best, and tells the best score that no slot of the split had room for.
    """
    # Row tiles run fastest: the blocks that run together read the same documents, from the L2 cache.
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = tl.program_id(1)
    lane = tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_D)
    inside = row < rows
    row = tl.minimum(row, rows - 1)  # instead of masks in the loop
    query = queries + row.to(tl.int64)[:, None] * dimension + depth[None, :]
    start = tl.load(floor + row)
    most_ids = 0
    if IDS:
        most_ids = tl.max(tl.load(id_counts + row))
    if CEILING:
        cap = tl.load(ceiling + row)

    top = tl.zeros((BLOCK_M, BLOCK_N), tl.int32) + start[:, None]
    if CERTIFIED:
        next_top = top
        rest = top
    for tile in range(tiles):
        column = (tile * splits + split) * BLOCK_N + lane
        known = column < columns
        column = tl.minimum(column, columns - 1)
        document = documents + column.to(tl.int64)[None, :] * stride + depth[:, None]
        scores = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for at in range(0, dimension, BLOCK_D):
            if EVEN:
                q = tl.load(query + at)
                d = tl.load(document + at)
            else:
                left = dimension - at
                q = tl.load(query + at, mask=depth[None, :] < left, other=0.0)
                d = tl.load(document + at, mask=depth[:, None] < left, other=0.0)
            # For fp32 operands the default is tf32: its error is in the margin, the exact score comes later.
            scores = tl.dot(q, d, scores)

        # The order of floats as integers: bits of negative ones run backwards. Cut off the low bits (which
        # rounds down, whatever the sign) and a smaller packed score never means a larger score. Of equal
        # scores the earlier tile is the larger: the smaller column wins.
        bits = scores.to(tl.int32, bitcast=True)
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        packed = ((bits >> TILE_BITS) << TILE_BITS) | (LAST_TILE - tile)
        allowed = known[None, :]
        if CEILING:
            allowed &= scores < cap[:, None]
        packed = tl.where(allowed, packed, EMPTY)
        if IDS:
            document_id = tl.load(document_ids + column)
            for number in range(most_ids):
                query_id = tl.load(query_ids + row.to(tl.int64) * ids + number)
                packed = tl.where(document_id[None, :] == query_id[:, None], EMPTY, packed)

        if CERTIFIED:
            loser = tl.minimum(top, packed)
            rest = tl.maximum(rest, tl.minimum(next_top, loser))
            next_top = tl.maximum(next_top, loser)
        top = tl.maximum(top, packed)

    slot = row.to(tl.int64)[:, None] * (splits * BLOCK_N) + split * BLOCK_N + lane[None, :]
    tl.store(best + slot, top, mask=inside[:, None])
    if CERTIFIED:
        tl.store(second + slot, next_top, mask=inside[:, None])
        tl.store(lost + row * splits + split, tl.max(rest, axis=1), mask=inside)


@triton.jit
def rescore(
    queries,  # (rows, dimension)
    documents,  # (columns, dimension)
    candidates,  # (rows, count) int32, -1 for none
    scores,  # (rows, count) fp32
    dimension,
    stride,  # from one document to the next
    count,
    EVEN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """fp32 inner products of each query with its candidates, -inf for none.

    The order of summation depends on nothing but the dimension: equal documents get equal scores.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    depth = tl.arange(0, BLOCK_D)
    column = tl.load(candidates + row * count + place, mask=place < count, other=-1)
    there = column >= 0
    document = documents + tl.maximum(column, 0).to(tl.int64)[:, None] * stride + depth[None, :]
    query = queries + row * dimension + depth
    total = tl.zeros((BLOCK_C, BLOCK_D), tl.float32)
    for at in range(0, dimension, BLOCK_D):
        wanted = there[:, None]
        if EVEN:
            q = tl.load(query + at)
        else:
            q = tl.load(query + at, mask=depth < dimension - at, other=0.0)
            wanted &= depth[None, :] < dimension - at
        d = tl.load(document + at, mask=wanted, other=0.0)
        total += q.to(tl.float32)[None, :] * d.to(tl.float32)
    score = tl.where(there, tl.sum(total, axis=1), float("-inf"))
    tl.store(scores + row * count + place, score, mask=place < count)
