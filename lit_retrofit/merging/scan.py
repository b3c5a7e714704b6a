"""Measures a merged model at several weights on held-out data, and picks one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.languages import never_trained_on
from lit_retrofit.evaluation.measures import (
    Scores,
    TaskResult,
    evaluate_embeddings,
    mean_over_kinds,
    means_by_kind,
)
from lit_retrofit.evaluation.tasks import split_tasks
from lit_retrofit.merging.merged import Merged
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts

MEASURE = "nDCG@10"
_PLURAL: dict[Role, str] = {"query": "queries", "document": "documents"}


@dataclass(frozen=True)
class Point:
    """The model at one weight.

    Attributes:
        weight: 0 is the base, 1 the whole sum of the models.
        score: nDCG@10, the mean over the kinds of tasks; what `fit` monitors.
        untrained: its mean over the tasks of languages never trained on; None where there are none.
        means: kind → measure → mean over its tasks.
        tasks: each task's languages and nDCG@10.
    """

    weight: float
    score: float
    untrained: float | None
    means: dict[str, Scores]
    tasks: tuple[dict[str, Any], ...]


def scan_weights(
    merged: Merged,
    weights: Sequence[float],
    held_out: RetrievalSet,
    trained: frozenset[str] | None,
    *,
    pivot: str | None = "en",
    **embedding: Any,
) -> list[Point]:
    """Measures at each weight, in ascending order; the base (0) and the sum (1) are always among them.

    Args:
        merged: is left at the last weight.
        weights: between 0 and 1 in most cases; beyond 1 the change is exaggerated.
        held_out: what no part was trained on.
        trained: the languages that the models were trained on; None where that is not known.
        pivot: of the cross-lingual tasks.
        embedding: token_budget and precision of `embed_texts`.
    """
    sides: tuple[tuple[Role, Sequence[Query] | Sequence[Document]], ...] = (
        ("query", held_out.queries),
        ("document", held_out.corpus),
    )
    points = []
    for weight in sorted({0.0, 1.0, *weights}):
        merged.set_weight(weight)
        queries, corpus = (
            embed_texts(
                merged.encoder,
                [item.text for item in items],
                role,
                description=f"weight {weight:g}: {_PLURAL[role]}",
                **embedding,
            )
            for role, items in sides
        )
        results = evaluate_embeddings(held_out, queries, corpus, pivot=pivot, device=merged.encoder.device)
        points.append(_point(weight, results, trained, pivot))
    return points


def _point(
    weight: float, results: Sequence[TaskResult], trained: frozenset[str] | None, pivot: str | None
) -> Point:
    means = means_by_kind((result.task.kind, result.scores) for result in results)
    spared = [result.scores for result in results if never_trained_on(result.task, trained, pivot)]
    untrained = sum(scores[MEASURE] for scores in spared) / len(spared) if spared else None
    tasks = tuple(
        {
            "kind": result.task.kind,
            "query_language": result.task.query_language,
            "corpus_language": result.task.corpus_language,
            MEASURE: result.scores[MEASURE],
        }
        for result in results
    )
    return Point(weight, mean_over_kinds(means, MEASURE), untrained, means, tasks)


def check_protectable(held_out: RetrievalSet, trained: frozenset[str] | None, pivot: str | None) -> None:
    """Refuses to protect languages never trained on where there are none.

    Raises:
        UserError: the held-out data have no such task, or the runs do not tell what they were trained on.
    """
    if not any(never_trained_on(task, trained, pivot) for task in split_tasks(held_out, pivot=pivot).tasks):
        raise UserError(
            "protect_untrained: the runs' training.json names every language of the held-out data, or is "
            "missing; measure on more languages, or leave the option out"
        )


def pick(points: Sequence[Point], *, protect_untrained: bool) -> Point:
    """The point with the best score, of equal ones that nearest to the base.

    Args:
        points: with one at weight 0.
        protect_untrained: only among those whose mean over languages never trained on is not below the
            base's.
    """
    (base,) = (point for point in points if point.weight == 0)
    floor = base.untrained if protect_untrained else None
    allowed = [p for p in points if floor is None or (p.untrained is not None and p.untrained >= floor)]
    return min(allowed, key=lambda point: (-point.score, abs(point.weight)))
