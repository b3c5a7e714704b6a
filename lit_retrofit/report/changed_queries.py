"""Queries whose first three documents changed: counts, and a few chosen to be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lit_retrofit.data.records import Document, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import QueryResult
from lit_retrofit.report.comparison import TaskChange
from lit_retrofit.report.pairs import QueryPair, query_key

TOP = 3
EXCERPT = 160
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Counts:
    """Query-task pairs: measured, with a changed top three, and of these with a higher or lower nDCG@10."""

    measured: int
    changed: int
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document of a top three, cut to an excerpt."""

    text: str
    language: str | None
    relevant: bool


@dataclass(frozen=True, slots=True)
class ShownRanking:
    """One side of an example.

    Attributes:
        ndcg: nDCG@10.
        relevant_rank: of the first relevant document; None where none is among the first ten.
        documents: the first three.
    """

    ndcg: float
    relevant_rank: int | None
    documents: tuple[ShownDocument, ...]


@dataclass(frozen=True, slots=True)
class ShownQuery:
    """An example for the page.

    Attributes:
        text: the query.
        language: its language.
        task: for instance "de → en".
        zero_shot: whether the task's language was never trained on.
        before: the ranking before training.
        after: and after.
    """

    text: str
    language: str | None
    task: str
    zero_shot: bool
    before: ShownRanking
    after: ShownRanking


def changed_pairs(pairs: Sequence[QueryPair]) -> tuple[list[QueryPair], Counts]:
    """Keeps the queries whose first three documents differ, and counts."""
    changed = [pair for pair in pairs if pair.before.top_ids[:TOP] != pair.after.top_ids[:TOP]]
    better, worse = (sum(sign * pair.delta > 0 for pair in changed) for sign in (1, -1))
    return changed, Counts(len(pairs), len(changed), better, worse)


def choose(changed: Sequence[QueryPair], number: int) -> list[QueryPair]:
    """Chooses examples: the largest changes, spread over languages and directions.

    Queries that got worse have their share among those that changed, and at least one place where
    there are two. The choice depends on the queries alone, not on their order.

    Args:
        changed: queries to choose from.
        number: how many, at most.
    """
    better = [query for query in changed if query.delta > 0]
    worse = [query for query in changed if query.delta < 0]
    places = _places_for_worse(len(better), len(worse), number)
    used: Counter[str] = Counter()
    return _spread(better, number - places, used) + _spread(worse, places, used)


def _places_for_worse(better: int, worse: int, number: int) -> int:
    if not worse or not better:
        return number if worse else 0
    return min(max(round(number * worse / (better + worse)), 1), number - 1)


def _spread(candidates: Sequence[QueryPair], number: int, used: Counter[str]) -> list[QueryPair]:
    """The largest changes first, but those of languages and directions already seen later."""

    def order(pair: QueryPair) -> tuple[int, float, str]:
        return sum(used[facet] for facet in _facets(pair)), -abs(pair.delta), str(query_key(pair.after))

    left, chosen = list(candidates), list[QueryPair]()
    while left and len(chosen) < number:
        best = min(left, key=order)
        chosen.append(best)
        used.update(_facets(best))
        left = [pair for pair in left if pair.after.query_id != best.after.query_id]
    return chosen


def _facets(pair: QueryPair) -> set[str]:
    query = pair.after
    return {f"from {query.query_language}", f"to {query.corpus_language}", query.kind}


def show(chosen: Iterable[QueryPair], tasks: Iterable[TaskChange], data: RetrievalSet) -> list[ShownQuery]:
    """Looks up the texts of the chosen queries and of their documents.

    Args:
        chosen: by `choose`.
        tasks: of the comparison.
        data: the set that was evaluated.

    Raises:
        UserError: the set does not have a query or document of the evaluations.
    """
    task_by_languages = {(t.kind, t.query_language, t.corpus_language): t for t in tasks}
    queries = {query.id: query for query in data.queries}
    documents = {document.id: document for document in data.corpus}
    shown = []
    for pair in chosen:
        query = _look_up(queries, pair.after.query_id, data.name)
        task = task_by_languages[pair.after.kind, pair.after.query_language, pair.after.corpus_language]
        relevant = {id for id, grade in data.qrels[query.id].items() if grade > 0}
        sides = [_ranking(side, relevant, documents, data.name) for side in (pair.before, pair.after)]
        shown.append(ShownQuery(query.text, query.language, task.name, task.zero_shot, *sides))
    return shown


def _ranking(
    result: QueryResult, relevant: set[str], documents: Mapping[str, Document], data: str
) -> ShownRanking:
    found = [_look_up(documents, id, data) for id in result.top_ids[:TOP]]
    ranks = [rank for rank, id in enumerate(result.top_ids, start=1) if id in relevant]
    return ShownRanking(
        ndcg=result.ndcg,
        relevant_rank=min(ranks, default=None),
        documents=tuple(ShownDocument(excerpt(d.text), d.language, d.id in relevant) for d in found),
    )


def _look_up(items: Mapping[str, _Item], id: str, data: str) -> _Item:
    if id not in items:
        raise UserError(
            f"the evaluations name '{id}', which {data} does not have; give their data with --data, or "
            "--examples 0"
        )
    return items[id]


def excerpt(text: str) -> str:
    """One line of at most `EXCERPT` characters, cut between words where the last one is short."""
    line = " ".join(text.split())
    if len(line) <= EXCERPT:
        return line
    head = line[: EXCERPT - 1]
    words = head.rpartition(" ")[0]
    return (words if len(words) > EXCERPT - 30 else head).rstrip(" .…") + "…"
