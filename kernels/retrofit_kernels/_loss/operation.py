"""info_nce as one operation of torch: torch.compile keeps it whole, autograd gets what forward made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

import torch
from torch import Tensor

from retrofit_kernels._loss.engine import contrast
from retrofit_kernels._loss.flat_settings import flatten, unflatten
from retrofit_kernels._loss.gradients import Wanted
from retrofit_kernels._loss.operands import Documents, Operands, Queries, Settings
from retrofit_kernels._shared.precision import own_precision

Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def run(operands: Operands, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, with its gradients; accuracy and number of masked pairs, without.

    Args:
        operands: may require gradients.
        settings: everything that is not a tensor.

    Returns:
        Loss, 0-d or (B,) with reduction "none"; accuracy, 0-d; masked pairs, 0-d int64.
    """
    outputs = info_nce_operation(*arguments_of(operands, settings))
    return outputs[0], outputs[1], outputs[2]


def arguments_of(operands: Operands, settings: Settings) -> tuple[Any, ...]:
    """What `info_nce_operation` is called with: gradients are wanted where autograd would ask for them."""
    queries, documents, columns = operands.queries, operands.documents, operands.columns
    leaves = queries.embeddings, documents.embeddings, columns.embeddings, operands.scale
    return (
        queries.embeddings,
        documents.embeddings,
        None if columns is queries else columns.embeddings,
        operands.scale,
        operands.weights,
        queries.positives,
        _pack(operands),
        *flatten(settings),
        [leaf.requires_grad and torch.is_grad_enabled() for leaf in leaves],
    )


def _pack(operands: Operands) -> list[Tensor | None]:
    queries, documents, columns = operands.queries, operands.documents, operands.columns
    masks = [queries.ids, queries.groups, queries.guide]
    masks += [documents.ids, documents.groups, documents.owners, documents.guide]
    return [*masks, columns.positives, columns.ids, columns.groups, columns.guide]


def _unpack(
    queries: Tensor,
    documents: Tensor,
    columns: Tensor | None,
    scale: Tensor,
    weights: Tensor | None,
    positives: Tensor,
    masks: Sequence[Tensor | None],
    settings: Settings,
) -> Operands:
    def embeddings(tensor: Tensor) -> Tensor:
        if settings.backend == "torch":
            return tensor.to(scale.dtype).contiguous()
        # Triton multiplies no fp64: a guide's thresholds must know by how much its products err.
        return (tensor.float() if tensor.dtype == torch.float64 else tensor).contiguous()

    def guide(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else embeddings(tensor)

    ids, groups, guides, document_ids, document_groups, owners, guide_documents, *rest = masks
    own = Queries(embeddings(queries), positives, ids, groups, guide(guides))
    others = own
    if columns is not None and rest[0] is not None:
        others = Queries(embeddings(columns), rest[0], rest[1], rest[2], guide(rest[3]))
    right = Documents(embeddings(documents), document_ids, document_groups, owners, guide(guide_documents))
    return Operands(own, right, others, scale, weights)


def _share_of_each(weights: Tensor | None, rows: int, settings: Settings) -> tuple[Tensor | None, float]:
    """(B,) what each query's loss counts for, None for all one, and a weight of the whole."""
    if settings.reduction != "mean":
        return weights, 1.0
    if weights is None:
        return None, 1 / max(1, rows)
    total = weights.sum()
    return weights / total.masked_fill(total == 0, 1.0), 1.0


def _compute(
    queries: Tensor,
    documents: Tensor,
    columns: Optional[Tensor],  # noqa: UP045 - a schema is made of these annotations, on Python 3.10 too
    scale: Tensor,
    weights: Optional[Tensor],  # noqa: UP045
    positives: Tensor,
    masks: Sequence[Optional[Tensor]],  # noqa: UP045
    integers: Sequence[int],
    numbers: Sequence[float],
    words: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, accuracy, masked pairs, and gradients of queries, documents, columns and scale.

    The settings come flat, for the schema of an operation knows no dataclass. With reduction "none" the
    gradients are made in backward, by this operation again; else here. What is not wanted is empty.
    """
    options = unflatten(integers, numbers, words)
    device, dtype = queries.device, torch.promote_types(queries.dtype, torch.float32)
    tf32 = device.type == "cuda" and options.precision == "tf32"
    with torch.autocast(device.type, enabled=False), own_precision(tf32_on_gpu=tf32):
        scale = scale.to(device, dtype)
        weights = None if weights is None else weights.to(dtype)
        operands = _unpack(queries, documents, columns, scale, weights, positives, masks, options)
        now = Wanted(*wanted) if options.reduction != "none" else Wanted()
        shares, weight = _share_of_each(weights, len(queries), options)
        result = contrast(operands, options, now, shares, weight)
        losses = result.loss if shares is None else result.loss * shares
        loss = losses if options.reduction == "none" else losses.sum() * weight
        accuracy = result.correct.sum().float() / max(1, len(queries))
    found = result.gradients
    gradients = found.queries, found.documents, found.columns if columns is not None else None, found.scale
    made = [scale.new_empty(0) if gradient is None else gradient for gradient in gradients]
    return loss, accuracy, result.masked, made[0], made[1], made[2], made[3]


def _shapes(
    queries: Tensor,
    documents: Tensor,
    columns: Tensor | None,
    scale: Tensor,
    weights: Tensor | None,
    positives: Tensor,
    masks: Sequence[Tensor | None],
    integers: Sequence[int],
    numbers: Sequence[float],
    words: str,
    wanted: Sequence[bool],
) -> Outputs:
    options = unflatten(integers, numbers, words)
    dtype = torch.promote_types(queries.dtype, torch.float32)
    later = options.reduction == "none"
    scalar = queries.new_empty((), dtype=dtype)
    leaves = queries, documents, columns, scalar
    gradients = [
        queries.new_empty(0, dtype=dtype)
        if later or leaf is None or not want
        else torch.empty_like(leaf, dtype=dtype, memory_format=torch.contiguous_format)
        for leaf, want in zip(leaves, wanted, strict=True)
    ]
    loss = queries.new_empty(queries.shape[0], dtype=dtype) if later else scalar  # len() would fix the size
    masked = queries.new_empty((), dtype=torch.int64)
    return (
        loss,
        scalar.new_empty((), dtype=torch.float32),
        masked,
        gradients[0],
        gradients[1],
        gradients[2],
        gradients[3],
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    queries, documents, columns, scale, weights, positives, masks, *settings, wanted = inputs
    ctx.settings, ctx.wanted = unflatten(*settings), wanted
    ctx.no_mask_gradients = None if any(mask is None for mask in masks) else [None] * len(masks)
    ctx.later = ctx.settings.reduction == "none"
    leaves = queries, documents, columns, scale
    ctx.kinds = [None if leaf is None else (leaf.device, leaf.dtype) for leaf in leaves]
    ctx.mark_non_differentiable(*output[1:])
    if ctx.later:
        ctx.save_for_backward(*leaves, weights, positives, *masks)
    else:
        ctx.save_for_backward(*output[3:])


def _differentiate(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("info_nce has no second derivative: call backward without create_graph=True")
    factor: Tensor | None = upstream[0]
    gradients = ctx.saved_tensors
    if ctx.later:
        queries, documents, columns, scale, weights, positives, *masks = ctx.saved_tensors
        rows = upstream[0] if weights is None else upstream[0] * weights
        summed = flatten(replace(ctx.settings, reduction="sum"))
        operands = queries, documents, columns, scale, rows, positives, masks, *summed, ctx.wanted
        gradients, factor = info_nce_operation(*operands)[3:], None
    made = [
        times(gradient, factor, *kind) if kind is not None and want else None
        for gradient, kind, want in zip(gradients, ctx.kinds, ctx.wanted, strict=True)
    ]
    # weights, positives, masks, settings and wanted have no gradients; autograd wants a list for a full list
    return (*made, None, None, ctx.no_mask_gradients, None, None, None, None)


def times(gradient: Tensor, factor: Tensor | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Their product in a leaf's type, without a copy of the gradient where that can be.

    It is the gradient itself if the factor is None, or is seen to be 1 without waiting for a GPU. It takes
    its place unless the graph is kept for another backward, which needs the gradient as it is.
    """
    if factor is None:
        return gradient.to(device, dtype)
    if type(gradient) is not Tensor or type(factor) is not Tensor:  # traced values are of other types
        return (gradient * factor).to(device, dtype)
    if factor.device.type == "cpu" and bool(factor == 1):
        return gradient.to(device, dtype)
    if (gradient.device, gradient.dtype) != (device, dtype):
        product = torch.empty_like(gradient, dtype=dtype)
        return torch.mul(gradient, factor, out=product).to(device)  # a GPU rounds while it multiplies
    if torch._C._autograd._get_current_graph_task_keep_graph():
        return gradient * factor
    return gradient.mul_(factor)


# Registered by hand: torch.library.custom_op would import torch._dynamo at the first call, 1.5 s and 155 MB.
_NAME = "retrofit_kernels::info_nce"
_LIBRARY = torch.library.Library("retrofit_kernels", "FRAGMENT")
_LIBRARY.define(
    "info_nce" + torch.library.infer_schema(_compute, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,)
)
_LIBRARY.impl("info_nce", _compute, "CompositeExplicitAutograd")
torch.library.register_fake(_NAME, _shapes, lib=_LIBRARY)
torch.library.register_autograd(_NAME, _differentiate, setup_context=_keep, lib=_LIBRARY)
info_nce_operation = torch.ops.retrofit_kernels.info_nce.default
