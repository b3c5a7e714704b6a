"""The best k documents of each query found so far, and how more are merged into them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TIED_ROWS = 64
"""Rows with a tie at rank k that are looked through at a time."""


@dataclass(frozen=True, eq=False)
class Best:
    """The best documents of each query so far, best first; equal scores by the smaller row of the corpus.

    Attributes:
        scores: (Q, k) fp32 or fp64, -inf where fewer than k were found.
        indices: (Q, k) int64 rows of the corpus, -1 where fewer than k were found.
    """

    scores: Tensor
    indices: Tensor

    @classmethod
    def empty(cls, rows: int, k: int, dtype: torch.dtype, device: torch.device) -> Best:
        """Nothing found yet."""
        scores = torch.full((rows, k), -torch.inf, dtype=dtype, device=device)
        return cls(scores, torch.full((rows, k), -1, device=device))

    @property
    def k(self) -> int:
        """Documents wanted per query."""
        return self.scores.shape[1]

    @property
    def least(self) -> Tensor:
        """(Q, 1) score at rank k: what a document that comes later in the corpus must exceed."""
        return self.scores[:, -1:]

    def at(self, rows: slice) -> Best:
        """A view of some rows: merging into it merges into this."""
        return Best(self.scores[rows], self.indices[rows])

    def rows(self, rows: Tensor) -> Best:
        """A copy of some rows."""
        return Best(self.scores[rows], self.indices[rows])

    def merged(self, scores: Tensor, columns: Tensor, rows: Tensor | slice = slice(None)) -> Best:
        """The best of `rows` together with candidates; this stays as it is.

        Args:
            scores: (R, c), -inf for no candidate.
            columns: (R, c) rows of the corpus, ascending in each row, all behind those found so far.
            rows: which R rows.
        """
        # Earlier finds have smaller columns and the candidates ascend: a stable sort breaks ties rightly. It
        # also leaves the -1 that stand there at first before whatever is excluded, for both score -inf.
        all_scores = torch.cat([self.scores[rows], scores], dim=1)
        all_columns = torch.cat([self.indices[rows], columns], dim=1)
        all_scores, order = all_scores.sort(dim=1, descending=True, stable=True)
        return Best(all_scores[:, : self.k], all_columns.gather(1, order[:, : self.k]))

    def put(self, rows: Tensor | slice, best: Best) -> None:
        """Overwrite some rows."""
        self.scores[rows], self.indices[rows] = best.scores, best.indices


def best_columns(scores: Tensor, k: int) -> Tensor:
    """(rows, k) columns of each row's best k scores, ascending; of equal scores the smaller columns.

    `torch.topk` takes any of the scores that tie at rank k. One rank more shows whether there is such a tie.
    """
    values, found = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if values.shape[1] > k:
        least = values[:, k - 1]
        tied = ((least == values[:, k]) & (least > -torch.inf)).nonzero().squeeze(1)
        found = found[:, :k].contiguous()
        for rows in tied.split(TIED_ROWS):
            found[rows] = _first_columns(scores[rows], least[rows].unsqueeze(1), k)
    return found.sort(dim=1).values


def _first_columns(scores: Tensor, least: Tensor, k: int) -> Tensor:
    """The columns above `least`, and as many of the first that equal it as make k."""
    above, equal = scores > least, scores == least
    wanted = k - above.sum(1, keepdim=True)
    taken = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= wanted))
    return taken.nonzero()[:, 1].view(len(scores), k)
