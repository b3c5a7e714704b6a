"""Nearest neighbours in plain torch: products in tiles, and a selection that looks at little of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from retrofit_kernels._search.best import Best, best_columns
from retrofit_kernels._search.pool import Chunk, Pool, magnitude, refuse_overflow
from retrofit_kernels._search.products import BLOCK, Products
from retrofit_kernels._search.recall import SLOTS, expected_recall, slot_sizes
from retrofit_kernels._search.stream import chunks
from retrofit_kernels._shared.pairs import find_pairs, strip_bounds

TILE_COLUMNS = 32768
"""Wide tiles make merges rare; a tile of the corpus is also what may be converted to fp32 at a time."""
FIRST_COLUMNS = 4096
"""Least width of the first tile. Each later one is at most as wide as all before it together, so that about k
documents of it, in random order, exceed what was found before; a few tiles later they are a handful."""
TILE_ROWS = 1024
MIN_TILE_ROWS = 64
"""Below this height a product no longer runs at its peak rate: make the tile narrower instead."""
PAIRS_PER_SCORE = 1 / 32
"""Excluded pairs per score: their indices then need about as much memory as the scores."""
DENSE = 1 / 2
"""Share of the blocks above which looking into each costs more than a top k of the tile."""


def search(pool: Pool, best: Best, *, approximate: bool, strip_bytes: int) -> float:
    """Search the pool's documents, put each query's best into `best`, and return the expected recall."""
    slots: list[tuple[int, int]] = []
    for chunk in chunks(pool, strip_bytes):
        slots += scan(pool, chunk, best, approximate=approximate, strip_bytes=strip_bytes)
    return expected_recall(slots, best.k) if approximate else 1.0


def scan(
    pool: Pool, chunk: Chunk, best: Best, *, approximate: bool, strip_bytes: int
) -> list[tuple[int, int]]:
    """Merge the best documents of a chunk into `best`; the slots they were dealt into, if approximate.

    Args:
        pool: queries in the type that scores are computed in, and their exclusions.
        chunk: documents behind those that `best` knows.
        best: what the search found so far.
        approximate: whether each slot of a tile keeps only its best document.
        strip_bytes: memory budget of one tile of scores.
    """
    rows, slots = len(pool.queries), []
    entries = max(1, strip_bytes // pool.queries.element_size())
    widest = max(1, min(len(chunk.vectors), TILE_COLUMNS, entries // MIN_TILE_ROWS))
    height = max(1, min(rows, TILE_ROWS, entries // widest))
    products = Products.of(pool.queries, pool.documents, height, widest)
    largest_query = magnitude(pool.queries) * pool.queries.shape[1]
    first = widest if approximate else max(FIRST_COLUMNS, 4 * BLOCK * best.k)
    for tile in _tiles(chunk, widest, first):
        vectors, documents = products.widened(tile.vectors), len(tile.vectors)
        refuse_overflow(largest_query * magnitude(vectors), vectors.dtype, pool)
        slots += slot_sizes(documents, min(SLOTS, documents))
        excluded = None
        if pool.query_ids is not None and tile.ids is not None:
            excluded = find_pairs(pool.query_ids, tile.ids)
        max_pairs = max(documents, int(height * documents * PAIRS_PER_SCORE))
        for begin, end in strip_bounds(rows, height, excluded, max_pairs):
            scores = products.scores(begin, end, vectors, documents)
            if excluded is not None:
                row, column = excluded.expand(begin, end)
                scores.view(-1).index_fill_(0, row * scores.shape[1] + column, -torch.inf)
            ceiling = None if pool.ceiling is None else pool.ceiling[begin:end].unsqueeze(1)
            known = best.at(slice(begin, end))
            if approximate or not _merge_exceeding(known, scores, ceiling, tile):
                _merge_all(known, scores[:, :documents], ceiling, tile, approximate)
    return slots


def _tiles(chunk: Chunk, widest: int, first: int) -> Iterator[Chunk]:
    """Pieces of the chunk; a search begins with `first` documents."""
    start, documents = 0, len(chunk.vectors)
    while start < documents:
        width = min(widest, max(first, chunk.first + start), documents - start)
        yield chunk.part(start, start + width)
        start += width


def _merge_exceeding(best: Best, scores: Tensor, ceiling: Tensor | None, tile: Chunk) -> bool:
    """Merge the few documents that exceed the rank k of their row, or return False if they are not few."""
    rows = len(scores)
    tops = scores.view(rows, -1, BLOCK).amax(dim=2)
    least = best.least
    promising = tops > least
    if int(promising.count_nonzero()) > tops.numel() * DENSE:
        least = torch.maximum(least, _below_rank(tops, ceiling, best.k))
        promising = tops > least
    row, block = promising.nonzero(as_tuple=True)
    if len(row) > tops.numel() * DENSE:
        return False
    inside = scores.view(-1, BLOCK).index_select(0, row * tops.shape[1] + block)
    passing = inside > least[row]
    if ceiling is not None:
        passing &= inside < ceiling[row]
    hit, lane = passing.nonzero(as_tuple=True)
    row, column = row[hit], block[hit] * BLOCK + lane
    counts = torch.bincount(row, minlength=rows)
    most = int(counts.max())
    if most > max(4 * best.k, 4 * BLOCK):
        return False
    if most:
        _merge_sparse(best, scores, row, column, counts, most, tile)
    return True


def _below_rank(tops: Tensor, ceiling: Tensor | None, k: int) -> Tensor:
    """(rows, 1) score that the tile's own k best documents exceed, as far as the tops of its blocks tell.

    The tops below the ceiling are documents that may be found: the best k documents are at least as good as
    the best k of the tops. It is the next smaller number, so that ties at rank k exceed it too.
    """
    if tops.shape[1] < k:
        return torch.full_like(tops[:, :1], -torch.inf)
    if ceiling is not None:
        tops = tops.masked_fill(tops >= ceiling, -torch.inf)
    rank = tops.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    return rank.nextafter(torch.full_like(rank, -torch.inf))


def _merge_sparse(
    best: Best, scores: Tensor, row: Tensor, column: Tensor, counts: Tensor, most: int, tile: Chunk
) -> None:
    """Merge the scores at (row, column), sorted by both; `counts` of them in each row, at most `most`."""
    touched = counts.nonzero().squeeze(1)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    slot = torch.empty_like(counts)
    slot[touched] = torch.arange(len(touched), device=row.device)
    found = scores.new_full((len(touched), most), -torch.inf)
    columns = row.new_zeros((len(touched), most))
    found[slot[row], place] = scores[row, column]
    columns[slot[row], place] = tile.rows_in_corpus(column)
    best.put(touched, best.merged(found, columns, touched))


def _merge_all(best: Best, scores: Tensor, ceiling: Tensor | None, tile: Chunk, approximate: bool) -> None:
    """Merge a tile by the top k of all its scores, or of the best of each slot."""
    if ceiling is not None:
        scores.masked_fill_((scores < ceiling).logical_not_(), -torch.inf)
    place = None
    if approximate and scores.shape[1] > SLOTS:
        scores, place = _best_of_slots(scores)
    # Of slots, twice as many: the k first of those that tie are first by slot, and become it by column.
    found = best_columns(scores, min(best.k if place is None else 2 * best.k, scores.shape[1]))
    scores = scores.gather(1, found)
    if place is not None:
        # A slot that only padding filled has the score -inf, for which any place will do.
        found, order = place.gather(1, found).clamp(max=len(tile.vectors) - 1).sort(dim=1)
        scores = scores.gather(1, order)
    best.put(slice(None), best.merged(scores, tile.rows_in_corpus(found)))


def _best_of_slots(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The best score of each slot (column modulo the number of slots), and its column: (rows, slots)."""
    full = pad(scores, (0, -scores.shape[1] % SLOTS), value=-torch.inf)
    best, number = full.view(len(scores), -1, SLOTS).max(dim=1)
    return best, number * SLOTS + torch.arange(SLOTS, device=scores.device)
