"""Reranking: the model orders the candidates of each query, and only those."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_retrofit.data.hub_retrieval import Candidates
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import (
    RERANKING_MEASURES,
    TaskResult,
    check_finite,
    measure_task,
    own_documents,
    trec_word,
)
from lit_retrofit.evaluation.tasks import LanguageTask, TaskSplit, task_name


def rerank_embeddings(
    retrieval_set: RetrievalSet,
    split: TaskSplit,
    candidates: Candidates,
    query_embeddings: Tensor,
    corpus_embeddings: Tensor,
) -> list[TaskResult]:
    """Orders each query's candidates by inner product, equal ones by their place in the corpus.

    Candidates outside of a task's restricted corpus and a document that is the query itself are left out, as
    in retrieval, and so are those of documents that were skipped as invalid where the set was read. A query
    without candidates counts as zero; see `with_candidates`.

    Args:
        retrieval_set: queries, corpus and judgements.
        split: its tasks.
        candidates: query id → document ids.
        query_embeddings: (Q, D) float32, in the order of ``retrieval_set.queries``.
        corpus_embeddings: (N, D) likewise, in the order of ``retrieval_set.corpus``.

    Raises:
        UserError: a candidate is no document of the corpus, or an embedding is not finite.
    """
    check_finite(retrieval_set.name, query_embeddings, corpus_embeddings)
    places, _ = _places(retrieval_set, candidates)
    own = own_documents(retrieval_set).tolist()
    return [
        _rerank(retrieval_set, task, places, own, query_embeddings, corpus_embeddings) for task in split.tasks
    ]


def with_candidates(retrieval_set: RetrievalSet, split: TaskSplit, candidates: Candidates) -> TaskSplit:
    """The tasks that can be reranked, perhaps none. Notes tell of others and of what they lack.

    Args:
        retrieval_set: queries, corpus and judgements.
        split: its tasks.
        candidates: query id → document ids.

    Raises:
        UserError: a candidate is no document of the corpus.
    """
    places, skipped = _places(retrieval_set, candidates)
    own = own_documents(retrieval_set).tolist()
    tasks, notes = [], list(split.notes)
    for task in split.tasks:
        empty = sum(not documents for documents in _allowed(task, places, own))
        queries, name = len(task.query_indices), task_name(retrieval_set, task)
        if invalid := sum(skipped[query] for query in task.query_indices):
            notes.append(
                f"{name}: {invalid} candidates are left out, for their documents were skipped as invalid"
            )
        if empty == queries:
            notes.append(f"{name} is left out: none of its {queries} queries has a candidate in its corpus")
            continue
        tasks.append(task)
        if empty:
            notes.append(f"{name}: {empty} of {queries} queries have no candidates and count as zero")
    return TaskSplit(tuple(tasks), tuple(notes))


def _allowed(task: LanguageTask, places: list[list[int]], own: list[int]) -> list[list[int]]:
    """For each query of a task, its candidates' positions in the corpus that the task is restricted to."""
    corpus = set(task.document_indices)
    return [[p for p in places[q] if p in corpus and p != own[q]] for q in task.query_indices]


def _places(retrieval_set: RetrievalSet, candidates: Candidates) -> tuple[list[list[int]], list[int]]:
    """For each query, its candidates' places in the corpus, ascending, and how many had been skipped."""
    # A run has %20 where an id has a space. An id that is there as it stands comes first.
    position = {trec_word(document.id): index for index, document in enumerate(retrieval_set.corpus)}
    position |= {document.id: index for index, document in enumerate(retrieval_set.corpus)}
    invalid = retrieval_set.left_out | {trec_word(id) for id in retrieval_set.left_out}
    found: list[list[int]] = []
    skipped: list[int] = []
    for query in retrieval_set.queries:
        ids = candidates.get(query.id) or candidates.get(trec_word(query.id), ())
        valid = [id for id in ids if id in position or id not in invalid]
        places = [position.get(id, -1) for id in valid]
        if -1 in places:
            raise UserError(
                f"{retrieval_set.name}: candidate '{valid[places.index(-1)]}' of query '{query.id}' is not "
                f"in the corpus (nor are {places.count(-1) - 1} more of its {len(ids)}); take the candidates "
                "of the same data set"
            )
        found.append(sorted(set(places)))
        skipped.append(len(ids) - len(valid))
    return found, skipped


def _rerank(
    retrieval_set: RetrievalSet,
    task: LanguageTask,
    places: list[list[int]],
    own: list[int],
    queries: Tensor,
    corpus: Tensor,
) -> TaskResult:
    column = {document: number for number, document in enumerate(task.document_indices)}
    allowed = _allowed(task, places, own)
    depth = max(1, *map(len, allowed), 1)
    indices = torch.full((len(allowed), depth), -1)
    scores = torch.full((len(allowed), depth), -torch.inf)
    for row, (query, documents) in enumerate(zip(task.query_indices, allowed, strict=True)):
        found = corpus[documents] @ queries[query]
        order = found.argsort(descending=True, stable=True)
        indices[row, : len(order)] = torch.tensor([column[d] for d in documents], dtype=torch.int64)[order]
        scores[row, : len(order)] = found[order]
    return measure_task(retrieval_set, task, indices, scores, RERANKING_MEASURES)
