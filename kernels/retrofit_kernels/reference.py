"""Slow, obviously right versions of the public functions: the oracles of tests and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from retrofit_kernels._pairs import as_rows
from retrofit_kernels.contrastive import ContrastiveOptions
from retrofit_kernels.neighbours import NeighbourOptions, Neighbours


def reference_info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    scale: float | Tensor,
    positives: Tensor | None = None,
    options: ContrastiveOptions | None = None,
) -> Tensor:
    """InfoNCE from the whole matrix of logits, with gradients by autograd.

    ``loss_i = log(1 + Σ_{j negative} exp(s_ij - s_ip))``: the formula without the difference of two large
    logarithms, so that fp64 holds the digits of a tiny loss too. Everything is computed in the inputs' own
    type, half precision included.

    Args:
        queries: (B, D).
        documents: (N, D).
        scale: inverse temperature.
        positives: (B,) int64; by default document i is query i's.
        options: as for `info_nce`.

    Returns:
        The loss, 0-d or (B,) with reduction "none".
    """
    options = options or ContrastiveOptions()
    if positives is None:
        positives = torch.arange(len(queries), device=queries.device)
    logits = queries @ documents.T * scale
    masked = reference_masked(positives, len(documents), options)
    excess = logits - logits.gather(1, positives.unsqueeze(1))
    excess = excess.masked_fill(masked, -torch.inf).scatter(1, positives.unsqueeze(1), -torch.inf)
    top = excess.detach().amax(1, keepdim=True).clamp(min=0)
    losses = (torch.log1p((excess - top).exp().sum(1, keepdim=True) + torch.expm1(-top)) + top).squeeze(1)
    if options.reduction == "none":
        return losses
    return losses.mean() if options.reduction == "mean" and len(losses) else losses.sum()


def reference_masked(positives: Tensor, columns: int, options: ContrastiveOptions) -> Tensor:
    """(B, N) bool: documents that carry one of the query's ids and are not the query's own positive."""
    masked = torch.zeros(len(positives), columns, dtype=torch.bool, device=positives.device)
    if options.query_ids is not None and options.document_ids is not None:
        for ids in as_rows(options.query_ids).T:
            masked |= (ids.unsqueeze(1) == options.document_ids) & (ids != -1).unsqueeze(1)
    return masked.scatter(1, positives.unsqueeze(1), False)


def reference_nearest_neighbours(
    queries: Tensor, corpus: Tensor, k: int, *, options: NeighbourOptions | None = None
) -> Neighbours:
    """Nearest neighbours by looking at one document after another, and sorting.

    Args:
        queries: (Q, D).
        corpus: (N, D).
        k: number of documents per query.
        options: as for `nearest_neighbours`.

    Returns:
        Scores and indices, each (Q, k).
    """
    options = options or NeighbourOptions()
    all_scores = (queries @ corpus.T).tolist()
    scores = torch.full((len(queries), k), -torch.inf)
    indices = torch.full((len(queries), k), -1)
    for row, row_scores in enumerate(all_scores):
        candidates = [
            (-score, column)
            for column, score in enumerate(row_scores)
            if _allowed(row, column, score, options)
        ]
        for rank, (negative_score, column) in enumerate(sorted(candidates)[:k]):
            scores[row, rank], indices[row, rank] = -negative_score, column
    return Neighbours(scores, indices)


def _allowed(row: int, column: int, score: float, options: NeighbourOptions) -> bool:
    if options.query_ids is not None and options.corpus_ids is not None:
        excluded = set(options.query_ids[row].reshape(-1).tolist()) - {-1}
        if int(options.corpus_ids[column]) in excluded:
            return False
    if options.query_groups is not None and options.corpus_groups is not None:
        same_group = int(options.query_groups[row]) == int(options.corpus_groups[column])
        if not same_group:
            return False
    return options.ceiling is None or score < float(options.ceiling[row])
