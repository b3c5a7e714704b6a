"""What all processes of a distributed loss must have alike, and the error on every one of them if not."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from retrofit_kernels._loss.operands import Documents, Queries, Settings
from retrofit_kernels.options import ContrastiveOptions

_OF_EACH_PROCESS = ("first_query", "strip_bytes", "backend")
"""Settings that may differ: they change neither what is exchanged nor the loss."""


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
        settings: of the loss, but for those of each process.
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
    settings: Settings

    def __getitem__(self, name: str) -> object:
        """The value of one of `NAMES`."""
        return getattr(self if name in _OWN else self.settings, name)

    def codes(self) -> list[int]:
        """A number for each of `NAMES`, the same on every process for equal values."""
        return [zlib.crc32(repr(self[name]).encode()) for name in NAMES]


_OWN = tuple(field.name for field in fields(Agreement) if field.name != "settings")
NAMES = (*_OWN, *(field.name for field in fields(Settings) if field.name not in _OF_EACH_PROCESS))


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
        # 1 and 1.0 are alike
        settings=replace(
            settings,
            hardness=float(settings.hardness),
            focal=float(settings.focal),
            prefix_weights=tuple(map(float, settings.prefix_weights)),
        ),
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
    mine = [*counts, *([0] * len(NAMES) if own is None else own.codes()), int(own is not None)]
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
    for place, name in enumerate(NAMES, start=len(counts)):
        others = [rank for rank, row in enumerate(rows) if row[place] != mine[place]]
        if others:
            raise ValueError(
                f"{name} must be the same on all ranks, but is {own[name]!r} "
                f"on rank {dist.get_rank(group)} and not on rank {others[0]}"
            )
    return [row[: len(counts)] for row in rows]
