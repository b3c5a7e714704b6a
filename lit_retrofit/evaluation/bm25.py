"""BM25, the lexical baseline."""

from __future__ import annotations

import numpy as np
import torch

from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.evaluation.measures import DEPTH, TaskResult, measure_task, own_documents
from lit_retrofit.evaluation.tasks import LanguageTask
from lit_retrofit.retrieval.lexical import LexicalIndex, top


def rank_bm25(retrieval_set: RetrievalSet, task: LanguageTask, k: int = DEPTH) -> TaskResult:
    """Ranks and measures a task by BM25 (Lucene's variant, k1 1.5, b 0.75) over its restricted corpus.

    Documents that share no term with the query are not ranked; ties go to the earlier document. A
    document with the query's own id is treated as in ``evaluate_embeddings``.

    Args:
        retrieval_set: the whole set.
        task: one of its tasks.
        k: depth of the ranking, at least 100.
    """
    index = LexicalIndex([retrieval_set.corpus[index].text for index in task.document_indices])
    own = own_documents(retrieval_set)[list(task.query_indices)].tolist()
    depth = min(k, len(task.document_indices))
    indices = np.full((len(task.query_indices), depth), -1, dtype=np.int64)
    scores = np.full(indices.shape, -np.inf, dtype=np.float32)
    position = {document: column for column, document in enumerate(task.document_indices)}
    for row, query in enumerate(task.query_indices):
        all_scores = index.scores(retrieval_set.queries[query].text)
        if own[row] in position:
            all_scores[position[own[row]]] = 0
        best = top(all_scores, depth)
        indices[row, : len(best)] = best
        scores[row, : len(best)] = all_scores[best]
    return measure_task(retrieval_set, task, torch.from_numpy(indices), torch.from_numpy(scores))
