"""The same queries in two evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import QueryResult, read_queries


@dataclass(frozen=True, slots=True)
class QueryPair:
    """A query of one task, in both evaluations."""

    before: QueryResult
    after: QueryResult

    @property
    def delta(self) -> float:
        """The change of its nDCG@10."""
        return self.after.ndcg - self.before.ndcg


def pair_queries(before: Path, after: Path) -> tuple[QueryPair, ...]:
    """Pairs the queries of two evaluations, in the second one's order.

    Raises:
        UserError: a file is missing or damaged, or the two name different queries.
    """
    old = {query_key(query): query for query in read_queries(before)}
    new = {query_key(query): query for query in read_queries(after)}
    differing = sorted(map(str, old.keys() ^ new.keys()))
    if differing:
        raise UserError(
            f"{before / 'queries.jsonl'} and {after / 'queries.jsonl'} name different queries "
            f"({len(differing)}, first {differing[0]}); evaluate both models on the same data"
        )
    return tuple(QueryPair(old[key], query) for key, query in new.items())


def query_key(query: QueryResult) -> tuple[str, str | None, str | None, str]:
    """What names a query among all tasks."""
    return query.kind, query.query_language, query.corpus_language, query.query_id
