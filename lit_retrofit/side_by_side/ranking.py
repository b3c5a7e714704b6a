"""A corpus embedded by a model, ranked for a query, with the rank that another model gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lit_retrofit.data.records import Document
from lit_retrofit.model.device import Precision
from lit_retrofit.model.dual import Encoders
from lit_retrofit.retrieval.cached import embed_cached
from lit_retrofit.retrieval.embed import embed_texts


@dataclass(frozen=True)
class Side:
    """A model and the corpus as it sees it.

    Attributes:
        name: as the user named it.
        encoder: for the queries.
        corpus: (documents, dimension) float32, on the CPU.
        precision: that the corpus was embedded in, and queries are.
    """

    name: str
    encoder: Encoders
    corpus: Tensor
    precision: Precision

    def scores(self, query: str) -> Tensor:
        """(documents,) inner products with the query: cosines, for a model that normalises."""
        return self.corpus @ embed_texts(self.encoder, [query], "query", precision=self.precision)[0]


@dataclass(frozen=True)
class Hit:
    """A document that a model found.

    Attributes:
        rank: from 1.
        score: inner product.
        document: its text and language.
        other_rank: the rank that the other model gives it, among all documents; None without another.
    """

    rank: int
    score: float
    document: Document
    other_rank: int | None


def embed_side(
    name: str,
    encoder: Encoders,
    documents: Sequence[Document],
    *,
    cache: Path,
    token_budget: int | None,
    precision: Precision,
    progress: bool,
) -> Side:
    """Embeds the corpus, or takes it from the cache; its progress goes to the standard output."""
    corpus = embed_cached(
        encoder,
        [document.text for document in documents],
        "document",
        cache=cache,
        token_budget=token_budget,
        precision=precision,
        description=f"Embedding for {name}" if progress else None,
    )
    return Side(name, encoder, corpus, precision)


def find(sides: Sequence[Side], documents: Sequence[Document], query: str, top: int) -> list[list[Hit]]:
    """Each model's best documents, best first; of equal scores, the earlier document.

    Args:
        sides: one or two models.
        documents: the corpus that they embedded.
        query: without prompt.
        top: how many of each.
    """
    orders = [side.scores(query).sort(descending=True, stable=True) for side in sides]
    ranks = [torch.empty_like(order.indices) for order in orders]
    for rank, order in zip(ranks, orders, strict=True):
        rank[order.indices] = torch.arange(1, len(documents) + 1)
    found = []
    for side, order in enumerate(orders):
        other = ranks[1 - side] if len(sides) == 2 else None
        best = zip(order.indices[:top].tolist(), order.values[:top].tolist(), strict=True)
        found.append(
            [
                Hit(at + 1, score, documents[place], None if other is None else int(other[place]))
                for at, (place, score) in enumerate(best)
            ]
        )
    return found
