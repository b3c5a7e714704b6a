"""Exclusions and ceiling for searches that know neither: search deeper until enough is left."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.kernels.neighbour_data import Problem

Run = Callable[[Problem], Tensor]
"""(Q, k) rows of the corpus, -1 where there are too few."""
Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Scores and rows of the best documents of some queries, to a depth."""
MARGIN = 100
"""Documents beyond k that a search is asked for at first; then four times as many."""


def filtered(search: Search, problem: Problem, deepest: int) -> Tensor:
    """Searches deeper until every query has k documents that it may find: exact, as far as `deepest`."""
    count = len(problem.queries)
    found = torch.full((count, problem.k), -1, dtype=torch.int64, device=problem.queries.device)
    pending = torch.arange(count, device=problem.queries.device)
    deepest = min(deepest, len(problem.corpus))
    depth = min(deepest, problem.k + MARGIN)
    while len(pending):
        part = problem.rows(pending)
        scores, rows = search(part.queries, depth)
        allowed = scores < part.ceiling.unsqueeze(1)
        for answer in part.answers.T:
            allowed &= problem.corpus_ids[rows] != answer.unsqueeze(1)
        rank = allowed.cumsum(1)
        allowed &= rank <= problem.k
        row, column = allowed.nonzero(as_tuple=True)
        found[pending[row], rank[row, column] - 1] = rows[row, column]
        pending = pending[rank[:, -1] < problem.k]
        if depth == deepest:
            break
        depth = min(deepest, 4 * depth)
    return found
