"""Searches a pool's documents for every query's negatives, block by block of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from retrofit_kernels import NeighbourOptions, Neighbours
from rich.progress import track
from torch import Tensor

from lit_retrofit.data.records import Document, Record
from lit_retrofit.mining.pool import Pool, PoolQuery
from lit_retrofit.mining.rules import MiningRules, ceilings, choose, count_drops
from lit_retrofit.retrieval.search import search

QUERY_BLOCK = 8192
"""Queries searched at a time: bounds the padded lists of known documents."""
PAIR_BLOCK = 16384
"""Query-positive pairs scored at a time."""

Backend = Literal["torch", "faiss"]


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
    """Finds the negatives of every query of a pool.

    Every block of queries is searched twice: below the ceiling for the survivors, and without ceiling
    or exclusion for the plain nearest documents, from which the drops are counted. The first search
    cannot tell what it passed over, and either costs little beside embedding the texts.

    Args:
        pool: what was embedded.
        queries: (queries, dimension) float32, normalised, in the pool's order, on the CPU.
        documents: (documents, dimension) float32, in the pool's order, on the CPU, from where the search
            reads them tile by tile: they need not fit into the device's memory.
        rules: what a negative must satisfy.
        backend: of the search.
        device: to search on.

    Returns:
        What was found for each query, and the counts of `count_drops` over all queries.
    """
    depth = min(rules.depth, len(pool.documents))
    rows = torch.arange(len(pool.documents), device=device)
    findings: list[Finding] = []
    drops: Counter[str] = Counter()
    for start in track(range(0, len(pool.queries), QUERY_BLOCK), description="Searching"):
        block = pool.queries[start : start + QUERY_BLOCK]
        vectors = queries[start : start + QUERY_BLOCK]
        scores = _positive_scores(vectors, documents, _padded([query.positives for query in block]))
        known = _padded([query.known for query in block])
        in_scope = _language_groups(block, pool.documents, device)
        allowed = replace(
            in_scope,
            query_ids=known.to(device),
            corpus_ids=rows,
            ceiling=ceilings(scores, rules).to(device),
        )
        nearest, survivors = (
            _on_cpu(search(vectors.to(device), documents, depth, options=options, backend=backend))
            for options in (in_scope, allowed)
        )
        negatives = choose(survivors, rules, [query.id for query in block])
        drops.update(count_drops(nearest, known, scores, rules))
        findings += _findings(block, scores, negatives)
    return findings, dict(drops)


def with_negatives(record: Record, found: Finding, pool: Pool) -> Record:
    """The record with what was found for its query, scores included, instead of its negatives."""
    return replace(
        record,
        negatives=tuple(pool.documents[row] for row in found.negatives),
        positive_scores=tuple(found.positive_scores[pool.text_rows[doc.text]] for doc in record.positives),
        negative_scores=found.negative_scores,
    )


def _on_cpu(found: Neighbours) -> Neighbours:
    return found._replace(scores=found.scores.cpu(), indices=found.indices.cpu())


def _findings(block: Sequence[PoolQuery], scores: Tensor, negatives: Neighbours) -> list[Finding]:
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


def _positive_scores(queries: Tensor, documents: Tensor, positives: Tensor) -> Tensor:
    """The similarity of each query to its positives, (Q, P), padded with +inf."""
    scores = torch.full(positives.shape, torch.inf)
    for pairs in torch.split((positives >= 0).nonzero(), PAIR_BLOCK):
        at, column = pairs.unbind(dim=1)
        scores[at, column] = (queries[at] * documents[positives[at, column]]).sum(dim=1)
    return scores


def _padded(rows: Sequence[tuple[int, ...]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([row + (-1,) * (width - len(row)) for row in rows])


def _language_groups(
    block: Sequence[PoolQuery], documents: Sequence[Document], device: torch.device | str
) -> NeighbourOptions:
    """Keeps each query to the documents of its candidates' language, where it has one."""
    if block[0].language is None:  # one scope holds for the whole pool
        return NeighbourOptions()
    names = {query.language for query in block} | {document.language for document in documents}
    codes = {name: code for code, name in enumerate(sorted(name for name in names if name))}
    return NeighbourOptions(
        query_groups=torch.tensor([codes[query.language or ""] for query in block], device=device),
        corpus_groups=torch.tensor([codes[document.language or ""] for document in documents], device=device),
    )
