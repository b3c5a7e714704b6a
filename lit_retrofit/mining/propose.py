"""Finds negatives in two steps: miners propose candidates, a judge scores them and the rules choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from retrofit_kernels import Neighbours
from rich.progress import track
from torch import Tensor

from lit_retrofit.mining.find import Finding, make_findings, padded
from lit_retrofit.mining.judges import Judge, score_pairs
from lit_retrofit.mining.miners import Miner, fuse
from lit_retrofit.mining.pool import Pool
from lit_retrofit.mining.rules import MiningRules, ceilings, choose, contained, count_drops, survivors_of

QUERY_BLOCK = 1024
"""Queries at a time: bounds the candidates that are scored at a time."""


def propose_negatives(
    pool: Pool,
    miners: Sequence[Miner],
    judge: Judge,
    rules: MiningRules,
    *,
    candidates: int,
    reorder: bool,
) -> tuple[list[Finding], dict[str, int]]:
    """Finds the negatives of every query of a pool among its candidates.

    Args:
        pool: see `Pool`.
        miners: their rankings are fused.
        judge: gives the scores that the rules compare and that the findings have.
        rules: what a negative must satisfy; ranks are those among the candidates.
        candidates: how many the fused ranking has for a query, beside its known answers.
        reorder: rank the candidates by the judge's scores instead of the miners' order.

    Returns:
        What was found for each query, and the counts of `count_drops` over all queries.
    """
    findings: list[Finding] = []
    drops: Counter[str] = Counter()
    for start in track(range(0, len(pool.queries), QUERY_BLOCK), description="Choosing"):
        at = torch.arange(start, min(start + QUERY_BLOCK, len(pool.queries)))
        block = pool.queries[start : start + QUERY_BLOCK]
        known = padded([query.known for query in block])
        depth = min(candidates + known.shape[1], len(pool.documents))
        proposed = _first_unknown(fuse([miner.propose(at, depth) for miner in miners]), known, candidates)
        unknown = (proposed >= 0) & ~contained(proposed, known)
        scores = score_pairs(judge, at, proposed, unknown, filling=-torch.inf)
        if reorder:
            proposed, scores = _best_first(proposed, scores)
        positives = padded([query.positives for query in block])
        positive_scores = score_pairs(judge, at, positives, filling=torch.inf)
        # The padding stays what it is: a sigmoid would make numbers of it.
        compared = torch.where(positive_scores.isfinite(), judge.comparable(positive_scores), torch.inf)
        candidate_scores = torch.where(scores.isfinite(), judge.comparable(scores), -torch.inf)
        allowed = scores.isfinite() & (candidate_scores < ceilings(compared, rules)[:, None])
        survivors = survivors_of(Neighbours(scores, proposed), allowed, rules.depth)
        chosen = choose(survivors, rules, [query.id for query in block])
        rows, row_scores = _best_first(chosen.indices, chosen.scores)
        drops.update(count_drops(Neighbours(candidate_scores, proposed), known, compared, rules))
        findings += make_findings(block, positive_scores, Neighbours(row_scores, rows))
    return findings, dict(drops)


def _first_unknown(rows: Tensor, known: Tensor, candidates: int) -> Tensor:
    """The ranking up to its last place with which no more than so many candidates are unknown."""
    unknown = (rows >= 0) & ~contained(rows, known)
    return rows.masked_fill(unknown.cumsum(dim=1) > candidates, -1)


def _best_first(rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the order of falling scores, equal ones by row."""
    rows, order = rows.sort(dim=1, stable=True)
    scores, by_score = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return rows.gather(1, by_score), scores
