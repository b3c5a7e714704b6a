"""Searches a pool's documents for every query's negatives, block by block of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from retrofit_kernels import Neighbours
from rich.progress import track
from torch import Tensor

from lit_retrofit.data.records import Record
from lit_retrofit.mining.exact import ExactSearch, Exclusions
from lit_retrofit.mining.judges import EncoderJudge, score_pairs
from lit_retrofit.mining.pool import Pool, PoolQuery
from lit_retrofit.mining.rules import MiningRules, ceilings, choose, contained, count_drops, survivors_of
from lit_retrofit.retrieval.search import Backend

QUERY_BLOCK = 8192
"""Queries searched at a time: bounds the padded lists of known documents."""
SPARE = 4
"""How many times deeper than the rules ask the first search goes. Most queries then have enough survivors,
and a search four times as deep costs little more: its products are the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found for one query.

    Attributes:
        positive_scores: for each row of a labelled positive its score.
        negatives: rows, best first.
        negative_scores: theirs.
    """

    positive_scores: dict[int, float]
    negatives: tuple[int, ...]
    negative_scores: tuple[float, ...]


def find_negatives(
    pool: Pool,
    queries: Tensor,
    documents: Tensor,
    rules: MiningRules,
    *,
    backend: Backend = "torch",
    device: torch.device | str = "cpu",
) -> tuple[list[Finding], dict[str, int]]:
    """Finds the negatives of every query of a pool by an exact search.

    Every block of queries is searched for the plain nearest documents, deeper than the rules ask; from these
    the drops are counted. The queries with too few survivors among them are searched again with the
    exclusions inside the search, which then goes as deep as it must.

    Args:
        pool: what was embedded.
        queries: (queries, dimension) float32, normalised, in the pool's order, on the CPU.
        documents: (documents, dimension) float32, in the pool's order, on the CPU; see `ExactSearch`.
        rules: what a negative must satisfy.
        backend: of the search.
        device: to search on.

    Returns:
        What was found for each query, and the counts of `count_drops` over all queries.
    """
    exact = ExactSearch(pool, queries, documents, backend, device)
    judge = EncoderJudge(queries, documents)
    depth = min(rules.depth, len(pool.documents))
    findings: list[Finding] = []
    drops: Counter[str] = Counter()
    for start in track(range(0, len(pool.queries), QUERY_BLOCK), description="Searching"):
        at = torch.arange(start, min(start + QUERY_BLOCK, len(pool.queries)))
        block = pool.queries[start : start + QUERY_BLOCK]
        scores = score_pairs(judge, at, padded([query.positives for query in block]), filling=torch.inf)
        excluded = Exclusions(padded([query.known for query in block]), ceilings(scores, rules))
        nearest = exact.nearest(at, min(SPARE * depth, len(pool.documents)))
        negatives = choose(_survivors(exact, at, nearest, excluded, depth), rules, [q.id for q in block])
        drops.update(count_drops(_first(nearest, depth), excluded.known, scores, rules))
        findings += make_findings(block, scores, negatives)
    return findings, dict(drops)


def _survivors(
    exact: ExactSearch, queries: Tensor, nearest: Neighbours, excluded: Exclusions, depth: int
) -> Neighbours:
    """The best documents that are not excluded, (Q, depth): of the nearest, or by a search of its own."""
    allowed = (nearest.indices >= 0) & (nearest.scores < excluded.below[:, None])
    found = survivors_of(nearest, allowed & ~contained(nearest.indices, excluded.known), depth)
    short = ((found.indices[:, -1] < 0) & (nearest.indices[:, -1] >= 0)).nonzero().squeeze(1)
    if len(short) and nearest.indices.shape[1] < len(exact.pool.documents):
        deeper = exact.nearest(
            queries[short], depth, Exclusions(excluded.known[short], excluded.below[short])
        )
        found.scores[short], found.indices[short] = deeper.scores, deeper.indices
    return found


def _first(found: Neighbours, depth: int) -> Neighbours:
    return found._replace(scores=found.scores[:, :depth], indices=found.indices[:, :depth])


def with_negatives(record: Record, found: Finding, pool: Pool) -> Record:
    """The record with what was found for its query, scores included, instead of its negatives."""
    return replace(
        record,
        negatives=tuple(pool.documents[row] for row in found.negatives),
        positive_scores=tuple(found.positive_scores[pool.text_rows[doc.text]] for doc in record.positives),
        negative_scores=found.negative_scores,
    )


def make_findings(block: Sequence[PoolQuery], scores: Tensor, negatives: Neighbours) -> list[Finding]:
    """What was found for the queries of a block.

    Args:
        block: Q queries.
        scores: (Q, P) of their positives, padded at the end.
        negatives: scores and rows, padded with -inf and -1.
    """
    table = zip(block, scores.tolist(), negatives.indices.tolist(), negatives.scores.tolist(), strict=True)
    found = []
    for query, positive_scores, rows, row_scores in table:
        filled = [(row, _rounded(score)) for row, score in zip(rows, row_scores, strict=True) if row >= 0]
        found.append(
            Finding(
                # The list of scores is padded beyond the query's own positives.
                positive_scores=dict(zip(query.positives, map(_rounded, positive_scores), strict=False)),
                negatives=tuple(row for row, _ in filled),
                negative_scores=tuple(score for _, score in filled),
            )
        )
    return found


def _rounded(score: float) -> float:
    """Six digits: what float32 can tell apart."""
    return round(score, 6)


def padded(rows: Sequence[tuple[int, ...]]) -> Tensor:
    """Rows of different lengths as one tensor, padded with -1."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + (-1,) * (width - len(row)) for row in rows])
