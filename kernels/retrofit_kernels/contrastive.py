"""InfoNCE over any number of negatives in the memory of a strip of logits: loss and gradients in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from retrofit_kernels._checks import (
    check_bytes,
    check_embeddings,
    check_integers,
    check_same_dimension,
    check_together,
    compute_dtype,
    describe,
)
from retrofit_kernels._pairs import PADDING, MatchingPairs, as_rows, find_pairs
from retrofit_kernels._strip_torch import Problem, Wanted, contrast

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, eq=False)
class ContrastiveOptions:
    """What `info_nce` may be told beyond its operands.

    Attributes:
        query_ids: (B,) or (B, P) int64, ids of all documents known to answer each query; -1 is padding. Comes
            together with `document_ids`.
        document_ids: (N,) int64. A document whose id is among a query's ids is no negative for that query.
        reduction: "mean" or "sum" over the queries, or "none" for one loss per query. "none" makes the logits
            twice (8u FLOP instead of 6u), for its row weights are known only in backward.
        strip_bytes: memory budget of one strip of logits, in bytes; at least one row (4·N bytes) is held.
    """

    query_ids: Tensor | None = None
    document_ids: Tensor | None = None
    reduction: Reduction = "mean"
    strip_bytes: int = 256 << 20


class ContrastiveOutput(NamedTuple):
    """What `info_nce` returns.

    Attributes:
        loss: 0-d, or (B,) with reduction "none"; fp32 (fp64 for fp64 inputs).
        accuracy: 0-d, share of the queries whose positive scores above all negatives; without gradient.
        masked: 0-d int64, number of (query, document) pairs left out because of their ids, the queries' own
            positives not counted.
    """

    loss: Tensor
    accuracy: Tensor
    masked: Tensor


def info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    scale: float | Tensor,
    positives: Tensor | None = None,
    options: ContrastiveOptions | None = None,
) -> ContrastiveOutput:
    """InfoNCE: the cross-entropy of each query's positive among its positive and negatives.

    ``loss_i = -log( exp(s_ip) / (exp(s_ip) + Σ_{j negative} exp(s_ij)) )``, where s is
    ``scale · queries @ documents.T`` and p the positive (van den Oord et al. 2018, eq. 4). Every document is
    a negative of every query, but for the own positive and what `options` masks by id. A query without
    negatives, as in a batch of one, has loss 0 and gradient 0: it learns nothing. So has an empty batch.

    The gradients come out of the forward pass, 6u FLOP in all (u = B·N·D multiply-adds), with O(strip × N)
    memory. Logits and softmax are fp32 for fp16, bf16 and fp32 inputs (also under autocast), fp64 for fp64;
    the result is exact at any temperature. There is no second derivative.

    Args:
        queries: (B, D) floating point; not normalised here.
        documents: (N, D), of the same dtype and device.
        scale: inverse temperature > 0, a number or a 0-d tensor, which may require a gradient. The sign of a
            tensor on a GPU is not checked, because that would wait for the device.
        positives: (B,) int64, the document (row) that is query i's positive; by default document i.
        options: masks, reduction, memory.

    Returns:
        The loss and, without gradient, accuracy and number of masked pairs.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, device or value.
    """
    options = options or ContrastiveOptions()
    _check(queries, documents, scale, options)
    positives = _positives(positives, len(queries), documents)
    masked, masked_count = _masked(positives, options)
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=compute_dtype(queries.dtype), device=queries.device)
    settings = _Settings(masked, options.reduction, options.strip_bytes)
    needs = [tensor.requires_grad and torch.is_grad_enabled() for tensor in (queries, documents, scale)]
    arguments = (queries, documents, scale, positives, settings, Wanted(*needs))
    loss, correct = _InfoNCE.apply(*arguments) if any(needs) else _InfoNCE.forward(None, *arguments)
    accuracy = correct.sum() / max(1, len(queries))
    return ContrastiveOutput(loss, accuracy, masked_count)


@dataclass(frozen=True, eq=False)
class _Settings:
    masked: MatchingPairs | None
    reduction: Reduction
    strip_bytes: int


def _problem(
    queries: Tensor, documents: Tensor, scale: Tensor, positives: Tensor, settings: _Settings
) -> Problem:
    dtype = compute_dtype(queries.dtype)
    return Problem(
        queries=queries.detach().to(dtype).contiguous(),
        documents=documents.detach().to(dtype).contiguous(),
        scale=scale.detach().to(queries.device, dtype),
        positives=positives,
        masked=settings.masked,
        strip_bytes=settings.strip_bytes,
    )


class _InfoNCE(torch.autograd.Function):
    """Gradients of the summed loss are made in forward and only scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        documents: Tensor,
        scale: Tensor,
        positives: Tensor,
        settings: _Settings,
        wanted: Wanted,
    ) -> tuple[Tensor, Tensor]:
        later = settings.reduction == "none"
        with torch.autocast(queries.device.type, enabled=False):
            problem = _problem(queries, documents, scale, positives, settings)
            result = contrast(problem, Wanted() if later else wanted)
            weight = 1 / max(1, len(queries)) if settings.reduction == "mean" else 1.0
            loss = result.loss if later else result.loss.sum() * weight
        if ctx is not None:
            ctx.settings, ctx.wanted, ctx.weight = settings, wanted, weight
            ctx.mark_non_differentiable(result.correct)
            if later:
                ctx.save_for_backward(queries, documents, scale, positives)
            else:
                ctx.types = [(tensor.device, tensor.dtype) for tensor in (queries, documents, scale)]
                ctx.save_for_backward(result.queries, result.documents, result.scale)
        return loss, result.correct

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("info_nce has no second derivative: call backward without create_graph=True")
        to_loss = upstream[0]
        with torch.autocast(to_loss.device.type, enabled=False):
            if ctx.settings.reduction == "none":
                queries, documents, scale, positives = ctx.saved_tensors
                problem = _problem(queries, documents, scale, positives, ctx.settings)
                result = contrast(problem, ctx.wanted, to_loss)
                types = [(tensor.device, tensor.dtype) for tensor in (queries, documents, scale)]
                gradients, factor = (result.queries, result.documents, result.scale), None
            else:
                gradients, types, factor = ctx.saved_tensors, ctx.types, to_loss * ctx.weight
            scaled = (
                None if gradient is None else (gradient if factor is None else gradient * factor).to(*kind)
                for gradient, kind in zip(gradients, types, strict=True)
            )
            return (*scaled, None, None, None)


def _check(queries: Tensor, documents: Tensor, scale: float | Tensor, options: ContrastiveOptions) -> None:
    check_embeddings("queries", queries)
    check_embeddings("documents", documents)
    check_same_dimension("queries", queries, "documents", documents)
    if queries.dtype != documents.dtype:
        raise TypeError(
            f"queries and documents must have one dtype, but are {queries.dtype} and {documents.dtype}"
        )
    if queries.device != documents.device:
        raise ValueError(
            f"queries and documents must be on one device, but are on {queries.device} and {documents.device}"
        )
    _check_scale(scale)
    if options.reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {options.reduction!r}")
    check_bytes("strip_bytes", options.strip_bytes)
    if check_together(query_ids=options.query_ids, document_ids=options.document_ids):
        rows, columns = len(queries), len(documents)
        check_integers("query_ids", options.query_ids, ((rows,), (rows, -1)), queries.device)
        check_integers("document_ids", options.document_ids, ((columns,),), queries.device)


def _check_scale(scale: float | Tensor) -> None:
    if isinstance(scale, Tensor):
        if scale.dim() != 0:
            raise ValueError(f"scale must be a number or a 0-d tensor, but has {describe(scale)}")
        if not scale.is_floating_point():
            raise TypeError(f"scale must be floating point, but has {describe(scale)}")
        if scale.device.type != "cpu":
            return
        scale = scale.item()
    elif not isinstance(scale, (int, float)):
        raise TypeError(f"scale must be a number or a 0-d tensor, not {type(scale).__name__}")
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale (1 / temperature) must be a finite number above 0, not {scale}")


def _positives(positives: Tensor | None, rows: int, documents: Tensor) -> Tensor:
    columns = len(documents)
    if positives is None:
        if columns < rows:
            raise ValueError(
                f"documents must hold a positive for each of the {rows} queries, "
                f"but has {describe(documents)}; name them with positives"
            )
        return torch.arange(rows, device=documents.device)
    check_integers("positives", positives, ((rows,),), documents.device)
    if rows and not bool(((positives >= 0) & (positives < columns)).all()):
        low, high = int(positives.min()), int(positives.max())
        raise ValueError(
            f"positives must be from 0 to {columns - 1} (rows of documents), but reach {low} … {high}"
        )
    return positives


def _masked(positives: Tensor, options: ContrastiveOptions) -> tuple[MatchingPairs | None, Tensor]:
    """The pairs with equal ids, and their number without the queries' own positives."""
    if options.query_ids is None or options.document_ids is None:
        return None, torch.zeros((), dtype=torch.int64, device=positives.device)
    pairs = find_pairs(options.query_ids, options.document_ids)
    own_id = options.document_ids[positives].unsqueeze(1)
    own_matches = ((as_rows(options.query_ids) == own_id) & (own_id != PADDING)).any(1)
    return pairs, pairs.per_row.sum().to(positives.device) - own_matches.sum()
