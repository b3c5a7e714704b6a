"""info_nce over the documents of all processes: gathered once, gradients returned to where they belong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from retrofit_kernels._loss.agreement import agreement_of, counts_of_all
from retrofit_kernels._loss.arguments import check_contrastive, checked_positives
from retrofit_kernels._loss.crowd import Crowd
from retrofit_kernels._loss.operands import Documents, Operands, Queries, Settings
from retrofit_kernels._loss.operation import arguments_of, info_nce_operation, times
from retrofit_kernels._shared.checks import compute_dtype
from retrofit_kernels._shared.pairs import PADDING
from retrofit_kernels.contrastive import ContrastiveOutput, operands_of, settings_of
from retrofit_kernels.options import ContrastiveOptions, Reduction


def distributed_info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    scale: float | Tensor,
    positives: Tensor | None = None,
    options: ContrastiveOptions | None = None,
    group: ProcessGroup | None = None,
) -> ContrastiveOutput:
    """`info_nce` of the batch that all processes' queries and documents make, in the order of their ranks.

    Every process computes the rows of its own queries against all documents: 6u FLOP in all, spread over the
    processes. The documents are gathered once, in their own dtype; their gradients are added up in the type
    of computation and scattered back once. Queries are gathered only where an option compares them with each
    other or with documents. Processes may have different numbers of queries and documents, also none.

    The loss is that of the whole batch, the same number on all processes, and each process gets the gradients
    that one process would compute for the same tensors, in direction and in norm. The gradient of a shared
    parameter, `scale` among them, is therefore the SUM over the processes: where gradients are averaged, as
    DistributedDataParallel does, multiply the loss by the number of processes. What requires a gradient on
    one process must do so on all, and all must run backward: it communicates.

    Args:
        queries: (B, D) of this process.
        documents: (N, D) of this process.
        scale: inverse temperature, the same everywhere.
        positives: (B,) or (B, P) int64, rows of this process's documents.
        options: of this process's queries and documents; `owners` are this process's queries. Ids and groups
            are compared across processes. `reduction` "none" gives the losses of this process's queries.
        group: the processes; by default all.

    Returns:
        Loss, accuracy and number of masked pairs of the whole batch.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, device or value, on this process or another; an option,
            a width or a dtype that is not the same everywhere. It is raised on all processes.
        RuntimeError: torch.distributed is not initialised.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "distributed_info_nce needs torch.distributed.init_process_group to be called first"
        )
    options = ContrastiveOptions() if options is None else options
    device = _meeting_place(queries, group)
    try:
        own, right, scale = _checked(queries, documents, scale, positives, options)
    except (TypeError, ValueError):
        counts_of_all(None, (0, 0), device, group)  # the others must not wait for this process
        raise
    settings = settings_of(queries, options)
    agreement = agreement_of(own, right, scale, options, settings)
    counts = counts_of_all(agreement, (len(queries), len(documents)), device, group)
    crowd = Crowd(dist.get_rank(group), [row[0] for row in counts], [row[1] for row in counts], group)
    own, right = _numbered(own, right, crowd)
    weights, weight = _shares(options, crowd, compute_dtype(queries.dtype))
    # The weights divide by the whole batch.
    reduction: Reduction = "none" if settings.reduction == "none" else "sum"
    settings = replace(settings, first_query=crowd.first_query, reduction=reduction)
    leaves = own.embeddings, right.embeddings, scale
    loss, accuracy, masked = _Distributed.apply(*leaves, own, right, weights, weight, settings, crowd)
    return ContrastiveOutput(loss, accuracy, masked)


class _Distributed(torch.autograd.Function):
    """Local rows against gathered columns. Gradients are made in forward, but for reduction "none"."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        documents: Tensor,
        scale: Tensor,
        own: Queries,
        right: Documents,
        weights: Tensor | None,
        weight: float,
        settings: Settings,
        crowd: Crowd,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needs_queries, needs_documents, needs_scale = ctx.needs_input_grad[:3]
        operands = _gathered(own, right, scale, weights, settings, crowd)
        shared = operands.columns is not operands.queries
        wanted = [needs_queries, needs_documents, needs_queries and shared, needs_scale]
        arguments = [*arguments_of(operands, settings)[:-1], wanted]
        loss, accuracy, masked, *gradients = info_nce_operation(*arguments)
        ctx.crowd = crowd
        ctx.kinds = [(tensor.device, tensor.dtype) for tensor in (queries, documents, scale)]
        ctx.again = (operands, settings, wanted) if settings.reduction == "none" else None
        ctx.wanted, ctx.weight = wanted, weight
        ctx.save_for_backward(*gradients)
        if settings.reduction != "none":
            loss = crowd.add_up(loss) * weight
        accuracy = crowd.add_up(accuracy * len(queries)) / max(1, crowd.queries)
        masked = crowd.add_up(masked)
        ctx.mark_non_differentiable(accuracy, masked)
        return loss, accuracy, masked

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "distributed_info_nce has no second derivative: call backward without create_graph=True"
            )
        factor: Tensor | None = upstream[0] * ctx.weight
        gradients = ctx.saved_tensors
        if ctx.again is not None:
            operands, settings, wanted = ctx.again
            rows = upstream[0] if operands.weights is None else upstream[0] * operands.weights
            summed = replace(settings, reduction="sum")
            arguments = arguments_of(replace(operands, weights=rows), summed)[:-1]
            gradients, factor = info_nce_operation(*arguments, wanted)[3:], None
        needs_queries, needs_documents, needs_columns, needs_scale = ctx.wanted
        to_queries, to_documents, to_columns, to_scale = gradients
        if needs_columns:
            to_queries = to_queries + ctx.crowd.scatter_queries(to_columns)
        if needs_documents:
            to_documents = ctx.crowd.scatter_documents(to_documents)
        made = [
            times(gradient, factor, *kind) if need else None
            for gradient, kind, need in zip(
                (to_queries, to_documents, to_scale),
                ctx.kinds,
                (needs_queries, needs_documents, needs_scale),
                strict=True,
            )
        ]
        return (*made, None, None, None, None, None, None)


def _meeting_place(queries: object, group: ProcessGroup | None) -> torch.device:
    """Where the collectives of the group work, whatever the arguments are and wherever they lie."""
    kind = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    if isinstance(queries, Tensor) and queries.device.type == kind:
        return queries.device
    return torch.device(kind)


def _checked(
    queries: Tensor,
    documents: Tensor,
    scale: float | Tensor,
    positives: Tensor | None,
    options: ContrastiveOptions,
) -> tuple[Queries, Documents, Tensor]:
    check_contrastive(queries, documents, scale, options)
    answers = checked_positives(positives, queries, documents)
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=compute_dtype(queries.dtype), device=queries.device)
    return *operands_of(queries, documents, answers, options), scale


def _numbered(own: Queries, right: Documents, crowd: Crowd) -> tuple[Queries, Documents]:
    """Positives and owners as rows of the gathered documents and queries."""

    def move(numbers: Tensor | None, by: int) -> Tensor | None:
        return None if numbers is None else torch.where(numbers == PADDING, PADDING, numbers + by)

    positives = torch.where(own.positives == PADDING, PADDING, own.positives + crowd.first_document)
    return replace(own, positives=positives), replace(right, owners=move(right.owners, crowd.first_query))


def _shares(options: ContrastiveOptions, crowd: Crowd, dtype: torch.dtype) -> tuple[Tensor | None, float]:
    """(B,) what each of this process's losses counts for, None for all one, and a weight of the whole.

    The weights are added up in the type of computation: the scale may be a parameter of 16 bits.
    """
    if options.reduction != "mean":
        return options.weights, 1.0
    if options.weights is None:
        return None, 1 / max(1, crowd.queries)
    weights = options.weights.to(dtype)
    total = crowd.add_up(weights.sum())
    return weights / total.masked_fill(total == 0, 1.0), 1.0


def _gathered(
    own: Queries, right: Documents, scale: Tensor, weights: Tensor | None, settings: Settings, crowd: Crowd
) -> Operands:
    def documents(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else crowd.gather_documents(tensor)

    def queries(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else crowd.gather_queries(tensor)

    columns = own
    if settings.query_to_query or settings.both_directions:
        columns = Queries(
            crowd.gather_queries(own.embeddings),
            crowd.gather_queries(own.positives),
            queries(own.ids),
            queries(own.groups),
            queries(own.guide),
        )
    everything = Documents(
        crowd.gather_documents(right.embeddings),
        documents(right.ids),
        documents(right.groups),
        documents(right.owners),
        documents(right.guide),
    )
    return Operands(own, everything, columns, scale, weights)
