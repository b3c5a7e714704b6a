"""Miners: each ranks the documents of a query's scope in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_retrofit.mining.exact import ExactSearch
from lit_retrofit.mining.pool import Pool
from lit_retrofit.retrieval.approximate import ApproximateIndex
from lit_retrofit.retrieval.lexical import LexicalIndex, top

RANK_CONSTANT = 60
"""Of reciprocal rank fusion, as in Cormack, Clarke and Büttcher (SIGIR 2009): it keeps one first place from
outweighing several good ones."""


class Miner(Protocol):
    """Proposes documents for the queries of a pool."""

    def propose(self, queries: Tensor, k: int) -> Tensor:
        """(Q, k) int64 rows of the pool, best first, padded with -1; known answers may be among them.

        Args:
            queries: (Q,) int64 positions in the pool.
            k: documents per query, at most as many as there are.
        """


class Scopes:
    """The documents that queries of each language may find, made when first asked for."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[str | None, NDArray[np.bool_] | None] = {None: None}

    def allowed(self, language: str | None) -> NDArray[np.bool_] | None:
        """(documents,) bool for a query's language; None where it may find all."""
        if language not in self._known:
            own = np.array([document.language == language for document in self._pool.documents])
            self._known[language] = ~own if self._pool.scope == "other" else own
        return self._known[language]


class DenseMiner:
    """Ranks by the similarity of embeddings, exactly or with an index over the same documents."""

    def __init__(self, exact: ExactSearch, index: ApproximateIndex | None = None) -> None:
        self._exact, self._index = exact, index
        self._scopes = Scopes(exact.pool)

    def propose(self, queries: Tensor, k: int) -> Tensor:
        """See `Miner`."""
        if self._index is None:
            return self._exact.nearest(queries, k).indices
        found = torch.full((len(queries), k), -1)
        languages = [self._exact.pool.queries[query].language for query in queries.tolist()]
        for language in dict.fromkeys(languages):
            part = torch.tensor([other == language for other in languages]).nonzero().squeeze(1)
            vectors = self._exact.queries[queries[part]]
            near = self._index.search(vectors, k, self._scopes.allowed(language))
            found[part, : near.shape[1]] = near
        return found


class LexicalMiner:
    """Ranks by BM25; documents that share no term with the query are not proposed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._index = LexicalIndex([document.text for document in pool.documents])
        self._scopes = Scopes(pool)

    def propose(self, queries: Tensor, k: int) -> Tensor:
        """See `Miner`."""
        found = torch.full((len(queries), k), -1)
        for at, query in enumerate(self._pool.queries[row] for row in queries.tolist()):
            scores, allowed = self._index.scores(query.text), self._scopes.allowed(query.language)
            best = top(scores if allowed is None else np.where(allowed, scores, 0), k)
            found[at, : len(best)] = torch.from_numpy(best)
        return found

    def scores(self, query: int, rows: Tensor) -> Tensor:
        """The scores of some documents for a query of the pool."""
        return torch.from_numpy(self._index.scores(self._pool.queries[query].text))[rows]


def fuse(rankings: Sequence[Tensor]) -> Tensor:
    """Reciprocal rank fusion: a document's score is the sum of 1 / (60 + its rank) over the rankings.

    Args:
        rankings: of every miner (Q, k) int64, best first, padded with -1; of one ranking only, it is the
            result.

    Returns:
        (Q, sum of k) int64, best first, equal scores by row, padded with -1.
    """
    if len(rankings) == 1:
        return rankings[0]
    weights = [
        (1 / (RANK_CONSTANT + torch.arange(1, ranking.shape[1] + 1).double())).expand_as(ranking)
        for ranking in rankings
    ]
    rows, order = torch.cat(list(rankings), dim=1).sort(dim=1, stable=True)
    weight = torch.cat(weights, dim=1).gather(1, order)
    # Mentions of one document lie side by side now; each run of them becomes one place.
    begins = torch.ones_like(rows, dtype=torch.bool)
    begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
    place = begins.cumsum(dim=1) - 1
    totals = torch.zeros_like(weight).scatter_add_(1, place, weight)
    documents = torch.full_like(rows, -1).scatter_(1, place, rows)
    totals = totals.masked_fill(documents < 0, -1.0)
    return documents.gather(1, totals.sort(dim=1, descending=True, stable=True).indices)
