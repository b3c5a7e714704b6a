"""Random vectors, and pairs whose query lies near its positive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_retrofit.data.records import Document, Record
from lit_retrofit.retrieval.store import EmbeddingKey, EmbeddingStore, digests_of

BLOCK = 65536


def stored_vectors(cache: Path, rows: int, dimension: int) -> Tensor:
    """Random normalised vectors in a store as `mine` has them, (rows, dimension), memory-mapped.

    Made once; a block's seed is its place, so that the same rows come every time.
    """
    key = EmbeddingKey("random", "document", "", "mean", True, 0, "float32", dimension)
    store = EmbeddingStore(cache, key)
    for start in range(len(store), rows, BLOCK):
        numbers = np.random.default_rng(start)
        block = numbers.standard_normal((min(BLOCK, rows - start), dimension), dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        store.append(digests_of([f"{row}" for row in range(start, start + len(block))]), block)
    return store.vectors(np.arange(rows))


@dataclass(frozen=True)
class GivenPairs:
    """Pairs with the embeddings of their texts, different texts each.

    Attributes:
        queries: texts.
        documents: the positive of each query.
        query_vectors: (pairs, dimension) float32, normalised.
        document_vectors: (pairs, dimension) float32, normalised.
    """

    queries: list[str]
    documents: list[str]
    query_vectors: Tensor
    document_vectors: Tensor

    @property
    def records(self) -> list[Record]:
        """As `mine` reads them."""
        pairs = zip(self.queries, self.documents, strict=True)
        return [
            Record(f"pair:{i}", query, (Document(f"{i:08d}", document),))
            for i, (query, document) in enumerate(pairs)
        ]


def given_pairs(pairs: int, dimension: int = 384, seed: int = 0) -> GivenPairs:
    """Documents in clusters of fifty, as topics make them; a query near its own document.

    The cosine of query and positive is about 0.75 and that of other documents of the topic about 0.6, so that
    the rules have something to drop.
    """
    numbers = torch.Generator().manual_seed(seed)

    def noise(rows: int) -> Tensor:
        return torch.randn(rows, dimension, generator=numbers) / dimension**0.5

    topics = noise(max(1, pairs // 50))
    documents = topics[torch.randint(len(topics), (pairs,), generator=numbers)] + 0.6 * noise(pairs)
    queries = documents + 0.9 * noise(pairs)
    return GivenPairs(
        [f"query {i:08d}" for i in range(pairs)],
        [f"document {i:08d}" for i in range(pairs)],
        torch.nn.functional.normalize(queries, dim=1),
        torch.nn.functional.normalize(documents, dim=1),
    )
