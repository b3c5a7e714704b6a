"""Contrastive loss and nearest neighbours on tensors: knows no model and no text, imports torch alone."""

from __future__ import annotations

from retrofit_kernels.contrastive import ContrastiveOutput, info_nce
from retrofit_kernels.distributed import distributed_info_nce
from retrofit_kernels.neighbours import NeighbourOptions, Neighbours, nearest_neighbours
from retrofit_kernels.options import ContrastiveOptions, Guide, Threshold

__all__ = [
    "ContrastiveOptions",
    "ContrastiveOutput",
    "Guide",
    "NeighbourOptions",
    "Neighbours",
    "Threshold",
    "distributed_info_nce",
    "info_nce",
    "nearest_neighbours",
]
