"""What a contrastive loss is computed from: tensors by the side they belong to, and settings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from retrofit_kernels.options import Precision, Reduction, Threshold


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries and what is known of them; each tensor has one row per query.

    Attributes:
        embeddings: (B, D).
        positives: (B, P) int64, rows of the documents, -1 is padding.
        ids: (B, K) int64, or None.
        groups: (B,) int64, or None.
        guide: (B, G), or None.
    """

    embeddings: Tensor
    positives: Tensor
    ids: Tensor | None = None
    groups: Tensor | None = None
    guide: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents and what is known of them; each tensor has one row per document.

    Attributes:
        embeddings: (N, D).
        ids: (N, 1) int64, or None.
        groups: (N,) int64, or None.
        owners: (N,) int64, number of a query or -1, or None.
        guide: (N, G), or None.
    """

    embeddings: Tensor
    ids: Tensor | None = None
    groups: Tensor | None = None
    owners: Tensor | None = None
    guide: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Operands:
    """The tensors of a loss, on one device.

    Attributes:
        queries: those that the loss is for.
        documents: all documents.
        columns: the queries of all processes, which queries and documents are compared with where an option
            asks for it. `queries` are a consecutive part of them; in one process they are the same.
        scale: 0-d, in the type of computation.
        weights: (B,) weights of the queries' losses, or None for all one.
    """

    queries: Queries
    documents: Documents
    columns: Queries
    scale: Tensor
    weights: Tensor | None


@dataclass(frozen=True)
class Settings:
    """What is not a tensor in a loss; see `ContrastiveOptions` for what is not explained here.

    Attributes:
        first_query: row of `Operands.columns` that is the first of `Operands.queries`.
        guide_threshold: the guide's threshold.
        prefixes: (D,) unless the option is set.
        renormalise: whether prefixes are made unit vectors.
    """

    first_query: int
    false_negatives: Threshold | None
    guide_threshold: Threshold | None
    query_to_query: bool
    document_to_document: bool
    both_directions: bool
    hardness: float
    focal: float
    prefixes: tuple[int, ...]
    prefix_weights: tuple[float, ...]
    renormalise: bool
    reduction: Reduction
    precision: Precision
    strip_bytes: int
    backend: str
