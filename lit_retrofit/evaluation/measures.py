"""nDCG@10, Recall@100 and MRR@10 of a ranking, and of embeddings, per language task."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import ir_measures
import numpy as np
import torch
from retrofit_kernels import NeighbourOptions

from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.tasks import LanguageTask, split_tasks, task_name
from lit_retrofit.retrieval.search import Backend, search

MEASURES = {
    "nDCG@10": ir_measures.nDCG @ 10,
    "Recall@100": ir_measures.R @ 100,
    "MRR@10": ir_measures.RR @ 10,
}
RERANKING_MEASURES = {
    "nDCG@10": ir_measures.nDCG @ 10,
    "MAP": ir_measures.AP,
    "MRR@10": ir_measures.RR @ 10,
}
Measures = Mapping[str, Any]
Scores = dict[str, float]
DEPTH = 100  # Recall@100 looks this deep
_ROWS_AT_A_TIME = 16384  # whose numbers are checked


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best documents of each query, best first.

    Attributes:
        query_ids: Q ids.
        document_ids: the ids that ``indices`` points into.
        indices: (Q, k) int64, positions in ``document_ids``; −1 where fewer than k documents matched.
        scores: (Q, k) float32; without meaning where the index is −1.
    """

    query_ids: tuple[str, ...]
    document_ids: tuple[str, ...]
    indices: torch.Tensor
    scores: torch.Tensor

    def __iter__(self) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        """Yields each query's id with its (document id, score) pairs, best first."""
        for query_id, indices, scores in zip(
            self.query_ids, self.indices.tolist(), self.scores.tolist(), strict=True
        ):
            pairs = zip(indices, scores, strict=True)
            yield query_id, [(self.document_ids[index], score) for index, score in pairs if index >= 0]


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one language task came to.

    Attributes:
        task: its languages, queries and documents.
        scores: the mean over the task's queries of each measure, 0 … 1.
        ndcg_per_query: query id → nDCG@10.
        ranking: the documents found, ids of the whole corpus.
    """

    task: LanguageTask
    scores: Scores
    ndcg_per_query: dict[str, float]
    ranking: Ranking


def evaluate_embeddings(
    retrieval_set: RetrievalSet,
    query_embeddings: torch.Tensor,
    corpus_embeddings: torch.Tensor,
    *,
    pivot: str | None = "en",
    k: int = DEPTH,
    backend: Backend = "torch",
    device: torch.device | str | None = None,
) -> list[TaskResult]:
    """Searches each language task exactly and measures the result.

    A document whose id is the query's own is not searched (in ArguAna and Quora it is the query
    itself), unless the judgements call it relevant to that query.

    Args:
        retrieval_set: queries, corpus and judgements.
        query_embeddings: (Q, D) float32, L2-normalised, in the order of ``retrieval_set.queries``.
        corpus_embeddings: (N, D) likewise, in the order of ``retrieval_set.corpus``.
        pivot: see ``split_tasks``.
        k: depth of the ranking, at least 100.
        backend: who searches, see ``search``.
        device: where to search; where the queries are by default. The corpus is read from where it is,
            piece by piece.

    Raises:
        ValueError: the numbers of embeddings and texts differ, or ``k`` is below 100.
        UserError: an embedding is not finite; or see ``split_tasks``.
    """
    if (len(query_embeddings), len(corpus_embeddings)) != (
        len(retrieval_set.queries),
        len(retrieval_set.corpus),
    ):
        raise ValueError(
            f"{len(query_embeddings)} query and {len(corpus_embeddings)} document embeddings for "
            f"{len(retrieval_set.queries)} queries and {len(retrieval_set.corpus)} documents"
        )
    if k < DEPTH:
        raise ValueError(f"k is {k}; Recall@{DEPTH} needs at least {DEPTH}")
    check_finite(retrieval_set.name, query_embeddings, corpus_embeddings)
    queries = query_embeddings.to(device or query_embeddings.device)
    own = own_documents(retrieval_set).to(queries.device)
    results = []
    for task in split_tasks(retrieval_set, pivot=pivot).tasks:
        rows = torch.tensor(task.query_indices, device=queries.device)
        columns = torch.tensor(task.document_indices)
        found = search(
            queries[rows],
            # a memory-mapped corpus that is searched whole is not copied
            corpus_embeddings
            if len(columns) == len(corpus_embeddings)
            else corpus_embeddings[columns.to(corpus_embeddings.device)],
            min(k, len(columns)),
            options=NeighbourOptions(query_ids=own[rows], corpus_ids=columns.to(queries.device)),
            backend=backend,
        )
        results.append(measure_task(retrieval_set, task, found.indices.cpu(), found.scores.cpu()))
    return results


def check_finite(name: str, *embeddings: torch.Tensor) -> None:
    """Refuses embeddings that no search can order.

    Raises:
        UserError: a number in them is infinite or none.
    """
    count = sum(len(rows) for rows in embeddings)
    # in pieces: a memory-mapped corpus may be larger than the memory
    pieces = (piece for rows in embeddings for piece in rows.split(_ROWS_AT_A_TIME))
    bad = count - sum(int(piece.isfinite().all(dim=1).sum()) for piece in pieces)
    if bad:
        raise UserError(
            f"{name}: {bad} of the {count} embeddings are not finite; "
            "the model has diverged, or overflows in this precision (try fp32)"
        )


def own_documents(retrieval_set: RetrievalSet) -> torch.Tensor:
    """(Q,) int64: the position of the document that a query must not find (its own id), or −1."""
    position = {document.id: index for index, document in enumerate(retrieval_set.corpus)}
    return torch.tensor(
        [
            -1 if retrieval_set.qrels.get(query.id, {}).get(query.id, 0) > 0 else position.get(query.id, -1)
            for query in retrieval_set.queries
        ]
    )


def notes_on_own_documents(retrieval_set: RetrievalSet, tasks: Sequence[LanguageTask]) -> list[str]:
    """A sentence for each task in which queries are not shown the document of their own id."""
    own, notes = own_documents(retrieval_set), []
    for task in tasks:
        rows, columns = (torch.tensor(places) for places in (task.query_indices, task.document_indices))
        if count := int(torch.isin(own[rows], columns).sum()):
            notes.append(
                f"{task_name(retrieval_set, task)}: {count} of {len(rows)} queries do not search the "
                "document that has their own id"
            )
    return notes


def measure_task(
    retrieval_set: RetrievalSet,
    task: LanguageTask,
    indices: torch.Tensor,
    scores: torch.Tensor,
    measures: Measures = MEASURES,
) -> TaskResult:
    """Measures what a search found inside a task.

    Args:
        retrieval_set: the whole set.
        task: one of its tasks.
        indices: (Q, k) int64, positions in ``task.document_indices``, best first, −1 padded.
        scores: (Q, k) float32.
        measures: name → measure of ir-measures.
    """
    documents = torch.tensor(task.document_indices)
    ids = tuple(document.id for document in retrieval_set.corpus)
    queries = tuple(retrieval_set.queries[index].id for index in task.query_indices)
    whole = torch.where(indices >= 0, documents[indices.clamp(min=0)], -1)
    ranking = Ranking(queries, ids, whole, scores)
    inside = {ids[index] for index in task.document_indices}
    qrels = {
        query: {id: grade for id, grade in retrieval_set.qrels[query].items() if id in inside}
        for query in queries
    }
    per_query = measure_ranking(ranking, qrels, measures)
    means = {name: math.fsum(values.values()) / len(values) for name, values in per_query.items()}
    return TaskResult(task, means, per_query["nDCG@10"], ranking)


def measure_ranking(
    ranking: Ranking, qrels: Mapping[str, Mapping[str, int]], measures: Measures = MEASURES
) -> dict[str, dict[str, float]]:
    """Each measure for each query of the ranking: measure → query id → value.

    nDCG uses the grades as gains (Järvelin & Kekäläinen 2002, log2 discount, as in trec_eval); for the
    others a grade of 1 or more is relevant.
    """
    # trec_eval sorts by score and breaks ties by document id; the rank as score keeps our order.
    run = {query: {id: -float(rank) for rank, (id, _) in enumerate(found)} for query, found in ranking}
    names = {measure: name for name, measure in measures.items()}
    judged = {query: dict(qrels[query]) for query in ranking.query_ids}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(ranking.query_ids, 0.0) for name in measures}
    for metric in ir_measures.iter_calc(list(measures.values()), judged, run):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values


def means_by_kind(scores: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, Scores]:
    """Kind → measure → unweighted mean, from the (kind, measure → score) of each task."""
    by_kind: dict[str, list[Mapping[str, float]]] = {}
    for kind, values in scores:
        by_kind.setdefault(kind, []).append(values)
    return {
        kind: {measure: math.fsum(task[measure] for task in tasks) / len(tasks) for measure in tasks[0]}
        for kind, tasks in by_kind.items()
    }


def mean_over_kinds(means: Mapping[str, Scores], measure: str = "nDCG@10") -> float:
    """The one number that decides between models: the mean over the kinds of tasks, each counting once."""
    return sum(scores[measure] for scores in means.values()) / len(means)


def trec_lines(ranking: Ranking, tag: str) -> Iterator[str]:
    """TREC's ``query Q0 document rank score tag``; white space inside an id or the tag becomes %XX.

    Tools that read runs sort them anew and break ties by document id. A tied score is therefore
    written as the next smaller float32, and our order survives.
    """
    words: dict[str, str] = {}
    tag = trec_word(tag)
    for query_id, found in ranking:
        query_word = trec_word(query_id)
        scores = _falling(np.array([similarity for _, similarity in found], dtype=np.float32)).tolist()
        for rank, ((document_id, _), score) in enumerate(zip(found, scores, strict=True), start=1):
            if (word := words.get(document_id)) is None:
                word = words[document_id] = trec_word(document_id)
            yield f"{query_word} Q0 {word} {rank} {score:.9g} {tag}\n"


def _falling(scores: np.ndarray) -> np.ndarray:
    """Each score, or the next float32 below the one before it where it is not smaller; in place."""
    if (scores[1:] < scores[:-1]).all():
        return scores
    for place in range(1, len(scores)):
        scores[place] = min(scores[place], np.nextafter(scores[place - 1], np.float32(-np.inf)))
    return scores


def trec_word(text: str) -> str:
    """An id or tag as a TREC run has it: white space becomes %XX."""
    return re.sub(r"\s", lambda space: quote(space[0]), text)
