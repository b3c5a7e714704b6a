"""The masks of a term in the types that the Triton kernel reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retrofit_kernels._loss.problem import Term
from retrofit_kernels._shared.pairs import PADDING


@dataclass(frozen=True, eq=False)
class Masks:
    """What the kernel needs to know of the pairs that are left out, in the types that it reads.

    Attributes:
        held_out: (R, H) int32.
        row_ids: (R, P) int32, or None, as all that follow.
        column_ids: (N, Q) int32.
        row_groups: (R,) int32.
        column_groups: (N,) int32.
        owner: (R,) int32.
        owners: (N,) int32.
        guide_rows: (R, G).
        guide_columns: (N, G).
        guide_thresholds: (R,) fp32.
        counted: whether kept columns are counted: where more than `held_out` decides.
    """

    held_out: Tensor
    row_ids: Tensor | None
    column_ids: Tensor | None
    row_groups: Tensor | None
    column_groups: Tensor | None
    owner: Tensor | None
    owners: Tensor | None
    guide_rows: Tensor | None
    guide_columns: Tensor | None
    guide_thresholds: Tensor | None
    counted: bool


def masks_of(term: Term) -> Masks:
    """The masks of a term.

    Ids and groups are numbered anew in 32 bits, in their order: half the registers and instructions per pair,
    for one sort of them. Nothing here waits for a GPU.
    """
    rows, columns = term.rows, term.columns
    row_ids = column_ids = row_groups = column_groups = owner = owners = None
    if rows.ids is not None and columns.ids is not None:
        row_ids, column_ids = _numbered(rows.ids, columns.ids)
        # Padding matches nothing: not even padding.
        row_ids = row_ids.masked_fill_(rows.ids == PADDING, -1)
        column_ids = column_ids.masked_fill_(columns.ids == PADDING, -2)
    if rows.groups is not None and columns.groups is not None:
        row_groups, column_groups = _numbered(rows.groups, columns.groups)
    if rows.owner is not None and columns.owners is not None:
        owner, owners = rows.owner.int().contiguous(), columns.owners.int().contiguous()
    guide_rows = guide_columns = guide_thresholds = None
    if rows.guide is not None and columns.guide is not None and rows.guide_threshold is not None:
        guide_rows, guide_columns = rows.guide.contiguous(), columns.guide.contiguous()
        guide_thresholds = rows.guide_threshold.float().contiguous()
    others = (row_ids, row_groups, owner, guide_rows, rows.threshold)
    return Masks(
        rows.held_out.int().contiguous(),
        row_ids,
        column_ids,
        row_groups,
        column_groups,
        owner,
        owners,
        guide_rows,
        guide_columns,
        guide_thresholds,
        any(tensor is not None for tensor in others),
    )


def largest_item(embeddings: Tensor, guide: Tensor | None) -> int:
    """Bytes of a number in the products: a guide may be fp32 beside 16-bit embeddings."""
    return max(embeddings.element_size(), 0 if guide is None else guide.element_size())


def _numbered(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Equal numbers for equal values, in the values' order, as int32 from 0 on."""
    values, place = torch.cat([left.flatten(), right.flatten()]).sort()
    steps = torch.zeros_like(values, dtype=torch.int32)
    steps[1:] = values[1:] != values[:-1]
    numbers = torch.empty_like(steps).scatter_(0, place, steps.cumsum(0, dtype=torch.int32))
    return numbers[: left.numel()].view(left.shape), numbers[left.numel() :].view(right.shape)
