"""BM25: cleaning, mining and evaluation stand on it."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray

from lit_retrofit.retrieval.words import tokenize


class LexicalIndex:
    """BM25, Lucene's variant with k1 1.5 and b 0.75, over some texts.

    Args:
        texts: the corpus; may hold texts without any word.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        corpus = [tokenize(text) for text in texts]
        self._documents = len(corpus)
        self._index = None
        if any(corpus):  # an index over no terms cannot be built, and would find nothing
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(corpus, show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """(documents,) float32, the score of each; 0 where it shares no term with the query."""
        ids = self._index.get_tokens_ids(tokenize(query)) if self._index is not None else []
        if self._index is None or not ids:
            return np.zeros(self._documents, np.float32)
        return self._index.get_scores_from_ids(ids)


def top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the k largest positive scores, best first, ties by the smaller position."""
    matched = np.flatnonzero(scores > 0)
    if len(matched) > k:
        least = np.partition(scores[matched], len(matched) - k)[len(matched) - k]
        matched = matched[scores[matched] >= least]
    return matched[np.argsort(-scores[matched], kind="stable")][:k]
