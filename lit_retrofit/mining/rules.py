"""Which of the documents near a query may be its hard negatives: the positive-aware rules.

The rules and the default values are those of NV-Retriever (arXiv 2407.15831, sections 3 and 4). A
document that scores as high as the positive is probably an unlabelled positive, so every rule is an
upper bound on the negative's similarity.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from retrofit_kernels import Neighbours
from torch import Tensor

from lit_retrofit.errors import UserError

FALLBACK_MARGIN = 0.05
"""Stands in for the relative margin where the positive's score is not above zero."""

DROPS = ("identity", "absolute_margin", "relative_margin", "max_score", "skip_ranks")
"""What takes candidates away, in the order in which they are counted."""

Sampling = Literal["top", "random"]


@dataclass(frozen=True)  # no slots: the command line reads options through vars()
class MiningRules:
    """What a mined negative n of a query with the positive p must satisfy; s is the similarity.

    Several bounds combine: the lowest one holds. With several positives the lowest-scoring one counts.

    Attributes:
        absolute_margin: m of ``s_n < s_p - m``; None switches the rule off.
        relative_margin: r of ``s_n < r * s_p``, so 0.95 keeps what scores below 95 % of the positive.
            Defined for ``s_p > 0`` only: elsewhere ``s_n < s_p - 0.05`` holds. None switches it off.
        max_score: a of ``s_n < a``; None switches the rule off.
        skip_ranks: how many of the best survivors of the bounds are passed over.
        rank_window: the negatives are taken among this many survivors after the skipped ones.
        per_query: negatives per query, at most.
        sampling: ``random`` draws from the window, each survivor alike; ``top`` takes the best.
        seed: of the drawing.
    """

    absolute_margin: float | None = None
    relative_margin: float | None = 0.95
    max_score: float | None = None
    skip_ranks: int = 0
    rank_window: int = 10
    per_query: int = 4
    sampling: Sampling = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UserError: a value is outside its range.
        """
        if self.absolute_margin is not None and not 0.0 <= self.absolute_margin <= 2.0:
            raise UserError(f"absolute_margin is {self.absolute_margin}; give a value from 0 to 2, or null")
        if self.relative_margin is not None and not 0.0 < self.relative_margin <= 1.0:
            raise UserError(
                f"relative_margin is {self.relative_margin}; give the share of the positive's score that a "
                "negative must stay below, above 0 and at most 1 (0.95 is usual), or null"
            )
        if self.max_score is not None and not -1.0 < self.max_score <= 1.0:
            raise UserError(f"max_score is {self.max_score}; give a cosine above -1 and at most 1, or null")
        if self.skip_ranks < 0:
            raise UserError(f"skip_ranks is {self.skip_ranks}; give 0 or more")
        if self.per_query < 1:
            raise UserError(f"per_query is {self.per_query}; give 1 or more")
        if self.rank_window < self.per_query:
            raise UserError(
                f"rank_window is {self.rank_window}, less than the {self.per_query} negatives of per_query; "
                "raise rank_window or lower per_query"
            )
        if self.sampling not in ("top", "random"):
            raise UserError(f"sampling is '{self.sampling}'; give 'top' or 'random'")

    @property
    def depth(self) -> int:
        """How many survivors a search must return."""
        return self.skip_ranks + self.rank_window


def lowest(positive_scores: Tensor) -> Tensor:
    """The score of the lowest-scoring positive, (Q,), of scores (Q, P) padded with +inf."""
    return positive_scores.amin(dim=1)


def bounds(lowest_positive: Tensor, rules: MiningRules) -> dict[str, Tensor]:
    """The strict upper bound that each rule in force sets.

    Args:
        lowest_positive: (Q,), the score of each query's lowest-scoring positive.
        rules: see `MiningRules`.

    Returns:
        For every rule in force, by its name: (Q,).
    """
    by_rule: dict[str, Tensor] = {}
    if rules.absolute_margin is not None:
        by_rule["absolute_margin"] = lowest_positive - rules.absolute_margin
    if rules.relative_margin is not None:
        # A share of a negative score lies above that score, which would let false negatives in.
        by_rule["relative_margin"] = torch.where(
            lowest_positive > 0, lowest_positive * rules.relative_margin, lowest_positive - FALLBACK_MARGIN
        )
    if rules.max_score is not None:
        by_rule["max_score"] = torch.full_like(lowest_positive, rules.max_score)
    return by_rule


def ceilings(positive_scores: Tensor, rules: MiningRules) -> Tensor:
    """What a negative's score must stay strictly below.

    Args:
        positive_scores: (Q, P), each query's positives, padded with +inf; at least one per query.
        rules: see `MiningRules`.

    Returns:
        (Q,); +inf where no rule is in force.
    """
    by_rule = bounds(lowest(positive_scores), rules)
    unbounded = torch.full_like(positive_scores[:, 0], torch.inf)
    return torch.stack([unbounded, *by_rule.values()]).amin(dim=0)


def choose(survivors: Neighbours, rules: MiningRules, query_ids: Sequence[str]) -> Neighbours:
    """Takes each query's negatives from its survivors.

    The draw depends on the seed and the query's id alone: neither the order of the queries nor a
    split of them over processes changes it.

    Args:
        survivors: the ``rules.depth`` best documents below the ceiling, best first, equal scores by
            ascending index; scores (Q, k), indices (Q, k), padded with -inf and -1.
        rules: see `MiningRules`.
        query_ids: Q ids.

    Returns:
        Scores and indices, (Q, ``rules.per_query``), best first, padded in the same way.
    """
    found = (survivors.indices[:, : rules.depth] >= 0).sum(dim=1).tolist()
    columns = torch.full((len(query_ids), rules.per_query), -1, dtype=torch.long)
    for row, (query_id, count) in enumerate(zip(query_ids, found, strict=True)):
        taken = _take(range(rules.skip_ranks, count), rules, query_id)
        columns[row, : len(taken)] = torch.tensor(taken, dtype=torch.long)
    columns = columns.to(survivors.indices.device)
    filled, at = columns >= 0, columns.clamp(min=0)
    return Neighbours(
        scores=survivors.scores.gather(1, at).masked_fill(~filled, -torch.inf),
        indices=survivors.indices.gather(1, at).masked_fill(~filled, -1),
    )


def _take(window: range, rules: MiningRules, query_id: str) -> list[int]:
    if rules.sampling == "top" or len(window) <= rules.per_query:
        return list(window[: rules.per_query])
    # Seeding with a string hashes it with SHA-512: the same draw on every machine.
    generator = random.Random(f"{rules.seed}:{query_id}")
    return sorted(generator.sample(window, rules.per_query))


def survivors_of(candidates: Neighbours, allowed: Tensor, depth: int) -> Neighbours:
    """The first allowed candidates of each query, in their order.

    Args:
        candidates: scores and indices (Q, k).
        allowed: (Q, k) bool.
        depth: at most k.

    Returns:
        Scores and indices (Q, depth), padded with -inf and -1.
    """
    order = (~allowed).long().sort(dim=1, stable=True).indices[:, :depth]
    kept = allowed.gather(1, order)
    return Neighbours(
        scores=candidates.scores.gather(1, order).masked_fill(~kept, -torch.inf),
        indices=candidates.indices.gather(1, order).masked_fill(~kept, -1),
    )


def count_drops(
    nearest: Neighbours, known: Tensor, positive_scores: Tensor, rules: MiningRules
) -> dict[str, int]:
    """Counts what each rule takes away from the plain nearest documents.

    A candidate that several rules drop counts for the first of them in `DROPS`, so these counts and
    ``eligible`` add up to ``examined``.

    Args:
        nearest: the ``rules.depth`` nearest documents without exclusion or ceiling, padded with -1.
        known: (Q, P) int64, the documents that are no negatives of the query whatever they score,
            padded with -1.
        positive_scores: (Q, P'), padded with +inf.
        rules: see `MiningRules`.
    """
    left = nearest.indices >= 0
    counts = {"examined": int(left.sum())}

    def drop(rule: str, dropped: Tensor) -> Tensor:
        counts[rule] = int((left & dropped).sum())
        return left & ~dropped

    left = drop("identity", contained(nearest.indices, known))
    by_rule = bounds(lowest(positive_scores), rules)
    for rule in DROPS[1:-1]:
        bound = by_rule.get(rule, torch.full_like(positive_scores[:, 0], torch.inf))
        left = drop(rule, nearest.scores >= bound[:, None])
    # The candidates left so far, in order, are the first of the query's survivors.
    left = drop("skip_ranks", left.cumsum(dim=1) <= rules.skip_ranks)
    return {**counts, "eligible": int(left.sum())}


def contained(indices: Tensor, known: Tensor) -> Tensor:
    """Whether each index (Q, k) is among the known ones (Q, P) of its own row; memory Q * (k + P).

    At the padding of ``indices`` the answer means nothing.
    """
    span = int(max(indices.max(), known.max())) + 1
    offset = torch.arange(len(indices), device=indices.device)[:, None] * span
    return torch.isin(indices + offset, (known + offset)[known >= 0])
