"""Slow, obviously right versions of the public functions: the oracles of tests and benchmarks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from retrofit_kernels._shared.pairs import as_rows
from retrofit_kernels.neighbours import NeighbourOptions, Neighbours
from retrofit_kernels.options import ContrastiveOptions, Threshold


def reference_info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    scale: float | Tensor,
    positives: Tensor | None = None,
    options: ContrastiveOptions | None = None,
) -> Tensor:
    """InfoNCE from whole matrices of logits, with gradients by autograd.

    ``loss_i = log(1 + Σ_{j negative} exp(s_ij - s_ip))``: the formula without the difference of two large
    logarithms, so that fp64 holds the digits of a tiny loss too. Everything is computed in the inputs' own
    type, half precision included.

    Args:
        queries: (B, D).
        documents: (N, D).
        scale: inverse temperature.
        positives: (B,) or (B, P) int64, -1 is padding; by default document i is query i's.
        options: as for `info_nce`.

    Returns:
        The loss, 0-d or (B,) with reduction "none".
    """
    options = options or ContrastiveOptions()
    if positives is None:
        positives = torch.arange(len(queries), device=queries.device)
    positives = as_rows(positives)
    if options.prefixes is None:
        losses = _losses(queries, documents, scale, positives, options)
    else:
        weights = options.prefix_weights or (1.0,) * len(options.prefixes)
        losses = torch.zeros((), dtype=queries.dtype, device=queries.device)
        for prefix, weight in zip(options.prefixes, weights, strict=True):
            cut = normalize(queries[:, :prefix], dim=1), normalize(documents[:, :prefix], dim=1)
            losses = losses + weight * _losses(*cut, scale, positives, options)
    if options.weights is not None:
        losses = losses * options.weights
    if options.reduction == "none":
        return losses
    if options.reduction == "sum":
        return losses.sum()
    count = len(losses) if options.weights is None else options.weights.sum()
    return losses.sum() / max(count, 1e-30)


def _losses(
    queries: Tensor,
    documents: Tensor,
    scale: float | Tensor,
    positives: Tensor,
    options: ContrastiveOptions,
) -> Tensor:
    """(B,) loss of each query: the mean over its positives."""
    cosines = queries @ documents.T
    own_cosines = cosines.gather(1, positives.clamp(min=0))
    given = positives != -1
    least = own_cosines.masked_fill(~given, torch.inf).amin(1)
    left_out = reference_masked(positives, len(documents), options, cosines) | _own(positives, len(documents))
    others = _masked_queries(queries, positives, options, least)
    total = torch.zeros(len(queries), dtype=queries.dtype, device=queries.device)
    for slot, answers in enumerate(positives.clamp(min=0).T):
        own = scale * own_cosines[:, slot]
        logits = [(scale * cosines + options.hardness * cosines.detach()).masked_fill(left_out, -torch.inf)]
        if options.query_to_query:
            logits.append((scale * queries @ queries.T).masked_fill(others, -torch.inf))
        if options.document_to_document:
            alike = documents[answers] @ documents.T
            masked = _masked_documents(answers, positives, alike, options, least)
            logits.append((scale * alike).masked_fill(masked, -torch.inf))
        loss = _cross_entropy(own, torch.cat(logits, dim=1), options.focal)
        if options.both_directions:
            masked = _masked_queries_of(answers, positives, cosines, options)
            back = (scale * cosines.T[answers]).masked_fill(masked, -torch.inf)
            loss = (loss + _cross_entropy(own, back, options.focal)) / 2
        total = total + torch.where(given[:, slot], loss, 0) / given.sum(1)
    return total


def _cross_entropy(own: Tensor, others: Tensor, focal: float) -> Tensor:
    """(B,) of the logits (B,) of positives among (B, K) negatives, with its focal factor."""
    excess = others - own.unsqueeze(1)
    top = excess.detach().amax(1).clamp(min=0)
    loss = torch.log1p((excess - top.unsqueeze(1)).exp().sum(1) + torch.expm1(-top)) + top
    if not focal:
        return loss
    lost = torch.where(loss > 0, loss, 1.0)  # a power of 0 has no derivative
    return torch.where(loss > 0, lost * (-torch.expm1(-lost)) ** focal, 0.0)


def reference_masked(
    positives: Tensor, columns: int, options: ContrastiveOptions, cosines: Tensor | None = None
) -> Tensor:
    """(B, N) bool: documents that an option leaves out and that are not among the query's own positives."""
    positives = as_rows(positives)
    masked = torch.zeros(len(positives), columns, dtype=torch.bool, device=positives.device)
    if options.query_ids is not None and options.document_ids is not None:
        masked |= _share_an_id(as_rows(options.query_ids), as_rows(options.document_ids))
    if options.query_groups is not None and options.document_groups is not None:
        masked |= options.query_groups.unsqueeze(1) != options.document_groups
    if options.owners is not None:
        rows = torch.arange(len(positives), device=positives.device).unsqueeze(1)
        masked |= (options.owners != -1) & (options.owners != rows)
    own = _own(positives, columns)
    if options.false_negatives is not None and cosines is not None:
        least = cosines.masked_fill(~own, torch.inf).amin(1)
        masked |= cosines > _limit(least, options.false_negatives).unsqueeze(1)
    if options.guide is not None:
        guide = options.guide.queries @ options.guide.documents.T
        least = guide.masked_fill(~own, torch.inf).amin(1)
        masked |= guide > _limit(least, options.guide.threshold).unsqueeze(1)
    return masked & ~own


def _own(positives: Tensor, columns: int) -> Tensor:
    """(B, N) bool: the query's own positives."""
    numbers = torch.arange(columns, device=positives.device)
    return (positives.unsqueeze(2) == numbers).any(1)


def _share_an_id(left: Tensor, right: Tensor) -> Tensor:
    """(rows, columns) bool, of (rows, K) and (columns, K') ids of which -1 are none."""
    same = left[:, None, :, None] == right[None, :, None, :]
    return (same & (left != -1)[:, None, :, None]).flatten(2).any(2)


def _limit(own: Tensor, threshold: Threshold) -> Tensor:
    if threshold.rule == "absolute":
        return torch.full_like(own, threshold.value)
    if threshold.rule == "margin":
        return own + threshold.value
    return torch.where(own > 0, own * threshold.value, own + threshold.value - 1)


def _guide_least(positives: Tensor, options: ContrastiveOptions) -> Tensor:
    assert options.guide is not None
    guide = options.guide.queries @ options.guide.documents.T
    return guide.masked_fill(~_own(positives, guide.shape[1]), torch.inf).amin(1)


def _masked_queries(queries: Tensor, positives: Tensor, options: ContrastiveOptions, least: Tensor) -> Tensor:
    """(B, B) bool: queries that are no negatives of a query."""
    masked = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    if options.query_ids is not None:
        masked |= _share_an_id(as_rows(options.query_ids), as_rows(options.query_ids))
    if options.query_groups is not None:
        masked |= options.query_groups.unsqueeze(1) != options.query_groups
    if options.false_negatives is not None:
        masked |= queries @ queries.T > _limit(least, options.false_negatives).unsqueeze(1)
    if options.guide is not None:
        limit = _limit(_guide_least(positives, options), options.guide.threshold)
        masked |= options.guide.queries @ options.guide.queries.T > limit.unsqueeze(1)
    return masked


def _masked_documents(
    answers: Tensor, positives: Tensor, alike: Tensor, options: ContrastiveOptions, least: Tensor
) -> Tensor:
    """(B, N) bool: documents that are no negatives by their likeness (B, N) to one positive."""
    without = replace(options, false_negatives=None, guide=None)
    masked = reference_masked(positives, alike.shape[1], without) | _own(positives, alike.shape[1])
    if options.false_negatives is not None:
        masked |= alike > _limit(least, options.false_negatives).unsqueeze(1)
    if options.guide is not None:
        limit = _limit(_guide_least(positives, options), options.guide.threshold)
        masked |= options.guide.documents[answers] @ options.guide.documents.T > limit.unsqueeze(1)
    return masked


def _masked_queries_of(
    answers: Tensor, positives: Tensor, cosines: Tensor, options: ContrastiveOptions
) -> Tensor:
    """(B, B) bool: queries k that are no negatives of the document that answers query i."""
    masked = (positives.unsqueeze(0) == answers[:, None, None]).any(2)
    numbers = torch.arange(len(answers), device=answers.device)
    masked |= numbers.unsqueeze(1) == numbers
    if options.query_ids is not None and options.document_ids is not None:
        masked |= _share_an_id(as_rows(options.document_ids[answers]), as_rows(options.query_ids))
    if options.query_groups is not None:
        masked |= options.query_groups.unsqueeze(1) != options.query_groups
    if options.false_negatives is not None:
        own = cosines[numbers, answers]
        masked |= cosines.T[answers] > _limit(own, options.false_negatives).unsqueeze(1)
    if options.guide is not None:
        guide = options.guide.documents @ options.guide.queries.T
        limit = _limit(guide[answers, numbers], options.guide.threshold)
        masked |= guide[answers] > limit.unsqueeze(1)
    return masked


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
