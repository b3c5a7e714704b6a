"""Contrastive loss and nearest neighbours on tensors: knows no model and no text, imports torch alone."""

from __future__ import annotations

from retrofit_kernels.contrastive import ContrastiveOptions, ContrastiveOutput, info_nce
from retrofit_kernels.neighbours import NeighbourOptions, Neighbours, nearest_neighbours

__all__ = [
    "ContrastiveOptions",
    "ContrastiveOutput",
    "NeighbourOptions",
    "Neighbours",
    "info_nce",
    "nearest_neighbours",
]
