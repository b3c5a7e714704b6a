"""Sparse (row, column) pairs of equal ids, found by sorting; nothing of the size rows × columns is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1
"""The query id that matches nothing."""


@dataclass(frozen=True, eq=False)
class MatchingPairs:
    """All pairs of a query row and a document column that carry the same id.

    The documents are sorted by id, so that every id of a query names one *run* of equal documents.

    Attributes:
        order: (N,) columns sorted by id, ascending within equal ids.
        run_row: (R,) query row of each run, ascending.
        run_start: (R,) first place of the run in `order`.
        run_length: (R,) number of columns in the run, at least one.
        per_row: (rows,) number of pairs in each query row, on the CPU.
        run_bound: (rows + 1,) first run of each row, on the CPU.
    """

    order: Tensor
    run_row: Tensor
    run_start: Tensor
    run_length: Tensor
    per_row: Tensor
    run_bound: Tensor

    def expand(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """The pairs of the rows `begin` … `end` - 1 as two vectors: row - `begin`, and column."""
        runs = slice(int(self.run_bound[begin]), int(self.run_bound[end]))
        length = self.run_length[runs]
        rows = torch.repeat_interleave(self.run_row[runs] - begin, length)
        shift = self.run_start[runs] - (length.cumsum(0) - length)
        places = torch.repeat_interleave(shift, length) + torch.arange(len(rows), device=length.device)
        return rows, self.order[places]


def find_pairs(query_ids: Tensor, document_ids: Tensor) -> MatchingPairs:
    """Find every pair of equal ids in O((B·P + N·P')·log(N·P')) time.

    Args:
        query_ids: (B,) or (B, P) int64; -1 is padding and matches nothing.
        document_ids: (N,) or (N, P') int64. A document with several ids may make the same pair several times.
    """
    queries = without_repeats(as_rows(query_ids))
    ids = as_rows(document_ids)
    sorted_ids, order = ids.flatten().sort(stable=True)
    order = order // max(1, ids.shape[1])
    start = torch.searchsorted(sorted_ids, queries)
    length = torch.searchsorted(sorted_ids, queries, right=True) - start
    length.masked_fill_(queries == PADDING, 0)
    run_row, slot = length.nonzero(as_tuple=True)
    runs_per_row = (length > 0).sum(1).cpu()
    return MatchingPairs(
        order=order,
        run_row=run_row,
        run_start=start[run_row, slot],
        run_length=length[run_row, slot],
        per_row=length.sum(1).cpu(),
        run_bound=torch.nn.functional.pad(runs_per_row.cumsum(0), (1, 0)),
    )


def as_rows(ids: Tensor) -> Tensor:
    """(B, P) ids from (B,) or (B, P)."""
    return ids.unsqueeze(1) if ids.dim() == 1 else ids


def without_repeats(ids: Tensor) -> Tensor:
    """(B, P) ids with the repeats of an id within its row turned into padding; each row comes out sorted."""
    ids = ids.sort(dim=1).values
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[:, 1:] = ids[:, 1:] == ids[:, :-1]
    return ids.masked_fill(repeated, PADDING)


def strip_bounds(
    rows: int, height: int, pairs: MatchingPairs | None, max_pairs: int
) -> list[tuple[int, int]]:
    """Cut `rows` into strips of at most `height` rows and about `max_pairs` pairs (at least one row each).

    Where ids repeat so often that a strip's pairs would need more memory than its logits, it gets lower.
    """
    if pairs is None:
        return [(begin, min(begin + height, rows)) for begin in range(0, rows, height)]
    so_far = pairs.per_row.cumsum(0)
    bounds: list[tuple[int, int]] = []
    begin = 0
    while begin < rows:
        before = int(so_far[begin - 1]) if begin else 0
        fitting = int(torch.searchsorted(so_far, before + max_pairs, right=True))
        end = max(begin + 1, min(begin + height, fitting, rows))
        bounds.append((begin, end))
        begin = end
    return bounds


@dataclass(frozen=True, eq=False)
class StripEntries:
    """Entries of a strip of rows that are to be overwritten, grouped by column tile.

    Attributes:
        rows: (E,) row in the strip of each entry.
        columns: (E,) its column in its tile.
        bounds: where each tile's entries begin, and the end: tiles + 1 numbers.
    """

    rows: Tensor
    columns: Tensor
    bounds: list[int]

    def fill(self, tile: Tensor, number: int, value: float) -> None:
        """Write `value` into the entries of the column tile `number`."""
        inside = slice(self.bounds[number], self.bounds[number + 1])
        if inside.start < inside.stop:
            tile[self.rows[inside], self.columns[inside]] = value


def strip_entries(rows: Tensor, columns: Tensor, tile_starts: list[int]) -> StripEntries:
    """Group the entries (rows[i], columns[i]) of a strip by column tile."""
    columns, by_column = columns.sort()
    starts = torch.tensor(tile_starts, device=columns.device, dtype=columns.dtype)
    bounds = [*torch.searchsorted(columns, starts).tolist(), len(columns)]
    counts = torch.tensor(bounds, device=columns.device).diff()
    return StripEntries(rows[by_column], columns - starts.repeat_interleave(counts), bounds)
