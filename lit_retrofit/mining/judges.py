"""Judges: what gives the scores that the rules compare and that the records keep."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lit_retrofit.mining.cached_scores import CachedCrossEncoder
from lit_retrofit.mining.miners import LexicalMiner
from lit_retrofit.mining.pool import Pool
from lit_retrofit.model.cross_encoder import CrossEncoder

PAIR_BLOCK = 16384
"""Pairs scored at a time."""


class Judge(Protocol):
    """Scores pairs of the pool's queries and documents."""

    def scores(self, queries: Tensor, rows: Tensor) -> Tensor:
        """(pairs,) float32, larger is more relevant.

        Args:
            queries: (pairs,) int64 positions in the pool, ascending.
            rows: (pairs,) int64 rows of the pool.
        """

    def comparable(self, scores: Tensor) -> Tensor:
        """The scores as the rules take them: where 95 % of a score is a little less than it."""


def score_pairs(
    judge: Judge, queries: Tensor, rows: Tensor, wanted: Tensor | None = None, *, filling: float
) -> Tensor:
    """Scores a table of documents.

    Args:
        judge: see `Judge`.
        queries: (Q,) int64 positions in the pool, ascending.
        rows: (Q, k) int64 rows of the pool, padded with -1.
        wanted: (Q, k) bool, the places to score; all but the padding by default.
        filling: stands at the other places.

    Returns:
        (Q, k) float32.
    """
    wanted = rows >= 0 if wanted is None else wanted
    scores = torch.full(rows.shape, filling)
    scores[wanted] = judge.scores(queries[wanted.nonzero(as_tuple=True)[0]], rows[wanted])
    return scores


class EncoderJudge:
    """The inner product of embeddings: the mining model itself, or a larger one.

    Attributes:
        queries: (queries, dimension) float32, normalised, in the pool's order.
        documents: (documents, dimension) float32, in the pool's order.
    """

    def __init__(self, queries: Tensor, documents: Tensor) -> None:
        self.queries, self.documents = queries, documents

    def scores(self, queries: Tensor, rows: Tensor) -> Tensor:
        """See `Judge`."""
        pairs = zip(queries.split(PAIR_BLOCK), rows.split(PAIR_BLOCK), strict=True)
        found = [(self.queries[at] * self.documents[row]).sum(dim=1) for at, row in pairs]
        return torch.cat(found) if found else torch.empty(0)

    def comparable(self, scores: Tensor) -> Tensor:
        """Cosines as they are."""
        return scores


class CrossEncoderJudge:
    """A cross-encoder's logits, which training distils as they are; the rules compare their sigmoid."""

    def __init__(self, pool: Pool, model: CrossEncoder | CachedCrossEncoder) -> None:
        self._pool, self._model = pool, model

    def scores(self, queries: Tensor, rows: Tensor) -> Tensor:
        """See `Judge`."""
        pairs = zip(queries.tolist(), rows.tolist(), strict=True)
        texts = [(self._pool.queries[at].text, self._pool.documents[row].text) for at, row in pairs]
        return self._model.scores(texts)

    def comparable(self, scores: Tensor) -> Tensor:
        """Probabilities: a share of a logit means nothing."""
        return scores.sigmoid()


class LexicalJudge:
    """BM25's scores; they have no upper end, so only the margins to the positive mean something."""

    def __init__(self, miner: LexicalMiner) -> None:
        self._miner = miner

    def scores(self, queries: Tensor, rows: Tensor) -> Tensor:
        """See `Judge`."""
        found = torch.empty(len(rows))
        for query in queries.unique().tolist():
            of_query = queries == query
            found[of_query] = self._miner.scores(query, rows[of_query])
        return found

    def comparable(self, scores: Tensor) -> Tensor:
        """The scores as they are."""
        return scores
