"""What all processes of a distributed loss must have alike, and the error on every one of them if not."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from retrofit_kernels._loss.operands import Documents, Queries, Settings
from retrofit_kernels.options import ContrastiveOptions, Precision, Reduction, Threshold


@dataclass(frozen=True)
class Agreement:
    """What must be alike everywhere: it decides which tensors are exchanged, or which loss it is.

    Attributes:
        dimension: of the embeddings.
        dtype: of the embeddings.
        positives_per_query: width of `positives`.
        query_ids_per_query: width of `query_ids`, 0 for none.
        groups: whether there are any.
        owners: whether there are any.
        guide: dimension and dtype of the guide's embeddings, or None.
        weights: whether there are any.
        requires_grad: of queries, documents and scale; all False where gradients are switched off.
        reduction: as all that follows, of `ContrastiveOptions`.
    """

    dimension: int
    dtype: torch.dtype
    positives_per_query: int
    query_ids_per_query: int
    groups: bool
    owners: bool
    guide: tuple[int, torch.dtype] | None
    weights: bool
    requires_grad: tuple[bool, ...]
    reduction: Reduction
    precision: Precision
    false_negatives: Threshold | None
    guide_threshold: Threshold | None
    query_to_query: bool
    document_to_document: bool
    both_directions: bool
    hardness: float
    focal: float
    prefixes: tuple[int, ...]
    prefix_weights: tuple[float, ...]

    def codes(self) -> list[int]:
        """A number for each field, the same on every process for equal values."""
        return [zlib.crc32(repr(getattr(self, field.name)).encode()) for field in fields(self)]


def agreement_of(
    own: Queries, right: Documents, scale: Tensor, options: ContrastiveOptions, settings: Settings
) -> Agreement:
    """This process's part."""
    leaves = own.embeddings, right.embeddings, scale
    return Agreement(
        dimension=right.embeddings.shape[1],
        dtype=right.embeddings.dtype,
        positives_per_query=own.positives.shape[1],
        query_ids_per_query=0 if own.ids is None else own.ids.shape[1],
        groups=right.groups is not None,
        owners=right.owners is not None,
        guide=None if right.guide is None else (right.guide.shape[1], right.guide.dtype),
        weights=options.weights is not None,
        requires_grad=tuple(torch.is_grad_enabled() and leaf.requires_grad for leaf in leaves),
        reduction=settings.reduction,
        precision=settings.precision,
        false_negatives=settings.false_negatives,
        guide_threshold=settings.guide_threshold,
        query_to_query=settings.query_to_query,
        document_to_document=settings.document_to_document,
        both_directions=settings.both_directions,
        hardness=float(settings.hardness),
        focal=float(settings.focal),
        prefixes=tuple(settings.prefixes),
        prefix_weights=tuple(float(weight) for weight in settings.prefix_weights),
    )


def counts_of_all(
    own: Agreement | None, counts: tuple[int, int], device: torch.device, group: ProcessGroup | None
) -> list[list[int]]:
    """The numbers of queries and documents of each process.

    Args:
        own: this process's part; None if it cannot take part, for which the others must not wait.
        counts: its numbers of queries and documents.
        device: that the group's collectives work on.
        group: the processes, None for all.

    Raises:
        ValueError: on all processes, if one cannot take part or something is not alike everywhere.
    """
    places = fields(Agreement)
    mine = [*counts, *([0] * len(places) if own is None else own.codes()), int(own is not None)]
    everyone = [
        torch.empty(len(mine), dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))
    ]
    dist.all_gather(everyone, torch.tensor(mine, device=device), group=group)
    rows = torch.stack(everyone).tolist()
    refused = [rank for rank, row in enumerate(rows) if not row[-1]]
    if own is None:
        return []
    if refused:
        raise ValueError(f"distributed_info_nce: rank {refused[0]} refused its arguments, see its own error")
    for place, field in enumerate(places, start=len(counts)):
        others = [rank for rank, row in enumerate(rows) if row[place] != mine[place]]
        if others:
            raise ValueError(
                f"{field.name} must be the same on all ranks, but is {getattr(own, field.name)!r} "
                f"on rank {dist.get_rank(group)} and not on rank {others[0]}"
            )
    return [row[: len(counts)] for row in rows]
