"""BM25, the lexical baseline."""

from __future__ import annotations

import bm25s
import numpy as np
import torch

from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.evaluation.measures import DEPTH, TaskResult, measure_task, own_documents
from lit_retrofit.evaluation.tasks import LanguageTask
from lit_retrofit.retrieval.words import tokenize


def rank_bm25(retrieval_set: RetrievalSet, task: LanguageTask, k: int = DEPTH) -> TaskResult:
    """Ranks and measures a task by BM25 (Lucene's variant, k1 1.5, b 0.75) over its restricted corpus.

    Documents that share no term with the query are not ranked; ties go to the earlier document. A
    document with the query's own id is treated as in ``evaluate_embeddings``.

    Args:
        retrieval_set: the whole set.
        task: one of its tasks.
        k: depth of the ranking, at least 100.
    """
    corpus = [tokenize(retrieval_set.corpus[index].text) for index in task.document_indices]
    queries = [tokenize(retrieval_set.queries[index].text) for index in task.query_indices]
    own = own_documents(retrieval_set)[list(task.query_indices)].tolist()
    depth = min(k, len(corpus))
    indices = np.full((len(queries), depth), -1, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    if any(corpus):  # an index over no terms cannot be built, and would find nothing
        index = bm25s.BM25(method="lucene", backend="numpy")
        index.index(corpus, show_progress=False)
        position = {document: column for column, document in enumerate(task.document_indices)}
        for row, tokens in enumerate(queries):
            ids = index.get_tokens_ids(tokens)
            all_scores = index.get_scores_from_ids(ids) if ids else np.zeros(len(corpus), np.float32)
            if own[row] in position:
                all_scores[position[own[row]]] = 0
            best = _top(all_scores, depth)
            indices[row, : len(best)] = best
            scores[row, : len(best)] = all_scores[best]
    return measure_task(retrieval_set, task, torch.from_numpy(indices), torch.from_numpy(scores))


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest positive scores, best first, ties by the smaller position."""
    matched = np.flatnonzero(scores > 0)
    if len(matched) > k:
        least = np.partition(scores[matched], len(matched) - k)[len(matched) - k]
        matched = matched[scores[matched] >= least]
    return matched[np.argsort(-scores[matched], kind="stable")][:k]
