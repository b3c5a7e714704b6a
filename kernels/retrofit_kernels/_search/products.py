"""Tiles of scores in plain torch, in which equal documents have equal scores, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

LEAST_ROWS, LEAST_COLUMNS = 16, 1024
"""Smaller products add up in another order than larger ones: equal documents of two tiles would get unequal
scores, and no longer be ordered by their rows. *Measured* (MKL, 33 to 4096 dimensions, one and two threads):
a single row differs even from column to column, and few rows from width to width; from 16 rows on, scores of
1000 and more columns are the same bit by bit. Those of 384 and 512 columns still differ from 1024 dimensions
on."""
BLOCK = 32
"""Scores that are looked at through their maximum first. *Measured* (1024 × 32768 scores, one core): the
maxima of blocks of 16 take 41 ms, of 32 8 ms, of 64 5 ms; a top 101 of all scores takes 83 ms, and the
product at dimension 384 290 ms."""


@dataclass(frozen=True, eq=False)
class Products:
    """Scores of some queries, tile by tile.

    Attributes:
        queries: (q, D), not fewer than `LEAST_ROWS`: zeros make up for what is missing.
        buffer: room for a strip of scores.
        columns: documents of the narrowest product.
    """

    queries: Tensor
    buffer: Tensor
    columns: int

    @classmethod
    def of(cls, queries: Tensor, documents: int, height: int, widest: int) -> Products:
        """Room for strips of `height` rows and `widest` documents, in a search of so many `documents`."""
        columns = min(LEAST_COLUMNS, documents)
        room = max(height, LEAST_ROWS) * _whole_blocks(max(widest, columns))
        return cls(_at_least(LEAST_ROWS, queries), queries.new_empty(room), columns)

    def widened(self, vectors: Tensor) -> Tensor:
        """The documents of a tile in the queries' type; zeros make up for what a product lacks."""
        return _at_least(self.columns, vectors.to(self.queries.dtype))

    def scores(self, begin: int, end: int, vectors: Tensor, documents: int) -> Tensor:
        """(rows, whole blocks) scores of the queries `begin` … `end` - 1, which the next call overwrites.

        Args:
            begin: first query.
            end: query after the last.
            vectors: what `widened` made of a tile.
            documents: how many the tile has; what lies behind them scores -inf.
        """
        first = begin if end - begin >= LEAST_ROWS else max(0, end - LEAST_ROWS)
        rows = self.queries[first : max(end, first + LEAST_ROWS)]
        width = _whole_blocks(len(vectors))
        blocks = self.buffer[: len(rows) * width].view(len(rows), width)
        torch.mm(rows, vectors.T, out=blocks[:, : len(vectors)])
        blocks[:, documents:] = -torch.inf
        return blocks[begin - first : end - first]


def _whole_blocks(columns: int) -> int:
    return -(-columns // BLOCK) * BLOCK


def _at_least(rows: int, vectors: Tensor) -> Tensor:
    return pad(vectors, (0, 0, 0, rows - len(vectors))) if len(vectors) < rows else vectors
