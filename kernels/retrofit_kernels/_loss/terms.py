"""From operands and options to the similarity matrices, masks and positives of a loss."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from retrofit_kernels._loss.operands import Operands, Queries, Settings
from retrofit_kernels._loss.problem import Columns, Placed, Problem, Rows, Term
from retrofit_kernels._loss.rowwise import inverse_norms, prefix_products
from retrofit_kernels._shared.checks import compute_dtype
from retrofit_kernels._shared.pairs import PADDING, without_repeats
from retrofit_kernels.options import Threshold

TF32_ROUNDING = 2.0**-9
"""What tf32 adds: it keeps 11 significant bits of both factors, and cuts off the rest or rounds it."""


def problems(operands: Operands, settings: Settings) -> list[Problem]:
    """The loss of finding documents for queries, and if wanted that of finding queries for documents."""
    found = [_towards_documents(operands, settings)]
    if settings.both_directions:
        found.append(_towards_queries(operands, settings))
    return found


def _towards_documents(operands: Operands, settings: Settings) -> Problem:
    queries, documents = operands.queries, operands.documents
    positives, shares, of_query = queries.positives, _shares(operands), None
    columns = Columns(
        documents.embeddings,
        documents.ids,
        documents.groups,
        documents.owners,
        documents.guide,
        _norms(documents.embeddings, settings),
    )
    rows = Rows(
        queries.embeddings,
        without_repeats(positives),
        queries.ids,
        queries.groups,
        None if documents.owners is None else _numbers(operands, settings),
        guide=queries.guide,
        inverse_norms=_norms(queries.embeddings, settings),
    )
    rows = _with_thresholds(rows, columns, positives, settings)
    numbers = _numbers(operands, settings)
    if settings.document_to_document and positives.shape[1] > 1:
        # Each positive has its own similarities to the other documents: it becomes a row of its own.
        of_query = _query_of_each_positive(queries)
        rows, numbers = _take(rows, of_query), numbers[of_query]
        positives, shares = positives.reshape(-1, 1), shares.reshape(-1, 1)
    gain = operands.scale + settings.hardness
    terms = [Placed(Term(rows, columns, gain, settings.prefixes), "queries", of_query, "documents")]
    if settings.query_to_query:
        others = replace(rows, held_out=numbers.unsqueeze(1), owner=None)
        term = Term(others, _query_columns(operands, settings), operands.scale, settings.prefixes)
        terms.append(Placed(term, "queries", of_query, "columns"))
    if settings.document_to_document:
        own = positives.squeeze(1).clamp(min=0)
        similar = replace(
            rows,
            embeddings=documents.embeddings[own],
            guide=None if documents.guide is None else documents.guide[own],
            inverse_norms=None if columns.inverse_norms is None else columns.inverse_norms[:, own],
        )
        term = Term(similar, columns, operands.scale, settings.prefixes)
        terms.append(Placed(term, "documents", own, "documents"))
    return _problem(terms, positives, shares, of_query, operands, settings)


def _towards_queries(operands: Operands, settings: Settings) -> Problem:
    """One row for each positive, all queries as columns.

    A query that has the document among its positives, or one of its ids, is no negative. Ids tell both: the
    document's own number, and its ids counted through beyond those numbers.
    """
    queries, documents = operands.queries, operands.documents
    of_query = _query_of_each_positive(queries)
    own = queries.positives.flatten().clamp(min=0)
    row_ids, column_ids = own.unsqueeze(1), operands.columns.positives
    if documents.ids is not None and operands.columns.ids is not None:
        row_tags, column_tags = _count_through(documents.ids, operands.columns.ids, len(documents.embeddings))
        row_ids = torch.cat([row_ids, row_tags[own]], dim=1)
        column_ids = torch.cat([column_ids, column_tags], dim=1)
    numbers = _numbers(operands, settings)[of_query].unsqueeze(1)
    embeddings = documents.embeddings[own]
    rows = Rows(
        embeddings,
        numbers,
        row_ids,
        None if queries.groups is None else queries.groups[of_query],
        guide=None if documents.guide is None else documents.guide[own],
        inverse_norms=_norms(embeddings, settings),
    )
    columns = replace(_query_columns(operands, settings), ids=column_ids)
    rows = _with_thresholds(rows, columns, numbers, settings)
    term = Term(rows, columns, operands.scale, settings.prefixes)
    shares = _shares(operands).reshape(-1, 1)
    return _problem(
        [Placed(term, "documents", own, "columns")], numbers, shares, of_query, operands, settings
    )


def _problem(
    terms: list[Placed],
    positives: Tensor,
    shares: Tensor,
    of_query: Tensor | None,
    operands: Operands,
    settings: Settings,
) -> Problem:
    # Of two directions each counts one half.
    portion = 0.5 if settings.both_directions else 1.0
    return Problem(
        terms=tuple(terms),
        positives=positives,
        shares=shares,
        queries=of_query,
        rows_per_query=1 if of_query is None else operands.queries.positives.shape[1],
        scale=operands.scale,
        focal=settings.focal,
        prefix_weights=tuple(portion * weight for weight in settings.prefix_weights),
    )


def _query_columns(operands: Operands, settings: Settings) -> Columns:
    columns = operands.columns
    norms = _norms(columns.embeddings, settings)
    return Columns(columns.embeddings, columns.ids, columns.groups, guide=columns.guide, inverse_norms=norms)


def _norms(embeddings: Tensor, settings: Settings) -> Tensor | None:
    return inverse_norms(embeddings, settings.prefixes) if settings.renormalise else None


def _shares(operands: Operands) -> Tensor:
    """(B, P), one over the number of the query's positives."""
    given = operands.queries.positives != PADDING
    return given.to(operands.scale.dtype) / given.sum(1, keepdim=True).clamp(min=1)


def _query_of_each_positive(queries: Queries) -> Tensor:
    """(B·P,) the query of each positive, padding included."""
    rows = torch.arange(len(queries.positives), device=queries.positives.device)
    return rows.repeat_interleave(queries.positives.shape[1])


def _take(rows: Rows, places: Tensor) -> Rows:
    """The rows at some places, which may repeat."""

    def take(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[places]

    return Rows(
        rows.embeddings[places],
        rows.held_out[places],
        take(rows.ids),
        take(rows.groups),
        take(rows.owner),
        None if rows.threshold is None else rows.threshold[:, places],
        take(rows.guide),
        take(rows.guide_threshold),
        None if rows.inverse_norms is None else rows.inverse_norms[:, places],
    )


def _numbers(operands: Operands, settings: Settings) -> Tensor:
    """(B,) the row of each query among `Operands.columns`."""
    first, count = settings.first_query, len(operands.queries.positives)
    return torch.arange(first, first + count, device=operands.queries.positives.device)


def _count_through(row_ids: Tensor, column_ids: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The same ids, numbered from `first` on; -1 stays."""
    ids = torch.cat([row_ids.flatten(), column_ids.flatten()])
    numbers = ids.unique(return_inverse=True)[1] + first
    numbers = numbers.masked_fill(ids == PADDING, PADDING)
    return numbers[: row_ids.numel()].view_as(row_ids), numbers[row_ids.numel() :].view_as(column_ids)


def _with_thresholds(rows: Rows, columns: Columns, positives: Tensor, settings: Settings) -> Rows:
    if settings.false_negatives is not None:
        norms = rows.inverse_norms, columns.inverse_norms
        sides, room = (rows.embeddings, columns.embeddings), settings.strip_bytes
        own = prefix_products(*sides, positives, settings.prefixes, norms, room)
        slack = _rounding(rows.embeddings, columns.embeddings, positives, settings, unit=settings.renormalise)
        rows = replace(rows, threshold=_thresholds(own, slack, positives, settings.false_negatives))
    if settings.guide_threshold is not None and rows.guide is not None and columns.guide is not None:
        whole, room = (rows.guide.shape[1],), settings.strip_bytes
        own = prefix_products(rows.guide, columns.guide, positives, whole, (None, None), room)
        slack = _rounding(rows.guide, columns.guide, positives, settings, unit=False)
        rows = replace(rows, guide_threshold=_thresholds(own, slack, positives, settings.guide_threshold)[0])
    return rows


def _rounding(left: Tensor, right: Tensor, positives: Tensor, settings: Settings, *, unit: bool) -> Tensor:
    """(R, P) bound of what rounding makes of equal similarities: that of a positive and of its duplicate.

    The one is summed row by row, the other in a matrix product, in another order or in tf32. Each sum
    of D products errs by D · eps / 2 of both lengths at most, or by D · eps on tensor cores, which cut off
    instead of rounding (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores").
    """
    dtype = compute_dtype(left.dtype)
    relative = 2 * (left.shape[1] + 8) * torch.finfo(dtype).eps
    in_tf32 = settings.precision == "tf32" and (settings.backend == "triton" or left.is_cuda)
    if in_tf32 and left.dtype == torch.float32:
        relative += TF32_ROUNDING
    if unit:
        return torch.full(positives.shape, relative, dtype=dtype, device=left.device)
    lengths = [torch.linalg.vector_norm(side, dim=1, dtype=dtype) for side in (left, right)]
    return relative * lengths[0].unsqueeze(1) * lengths[1][positives.clamp(min=0)]


def _thresholds(own: Tensor, slack: Tensor, positives: Tensor, threshold: Threshold) -> Tensor:
    """(M, R) from the similarities (M, R, P) of the positives, and the rounding (R, P) of each."""
    padding = positives == PADDING
    lowest = own.masked_fill(padding, torch.inf).amin(2)
    if threshold.rule == "absolute":
        return torch.full_like(lowest, threshold.value)
    slack = slack.masked_fill(padding, 0.0).amax(1)
    if threshold.rule == "margin":
        return lowest + threshold.value + slack
    return torch.where(lowest > 0, lowest * threshold.value, lowest + (threshold.value - 1)) + slack
