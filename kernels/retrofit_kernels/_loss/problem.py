"""What a contrastive loss is made of once its options are resolved: similarity matrices and their masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a similarity matrix: whom the loss is for, and what tells its false negatives.

    Attributes:
        embeddings: (R, D).
        held_out: (R, H) int64, columns that are never negatives of the row: its positives, or itself; -1 is
            padding.
        ids: (R, P) int64, a column with one of these ids is no negative; -1 matches nothing. None: not used.
        groups: (R,) int64, only columns of the same group are negatives, or None.
        owner: (R,) int64, number by which `Columns.owners` calls the row, or None.
        threshold: (M, R) in the type of computation, a column whose similarity is above it is no negative.
            One row for each prefix. None: not used.
        guide: (R, G), a guide model's embeddings, or None.
        guide_threshold: (R,), a column whose guide similarity is above it is no negative, or None.
        inverse_norms: (M, R), factors that make each prefix of the row a unit vector, or None.
    """

    embeddings: Tensor
    held_out: Tensor
    ids: Tensor | None = None
    groups: Tensor | None = None
    owner: Tensor | None = None
    threshold: Tensor | None = None
    guide: Tensor | None = None
    guide_threshold: Tensor | None = None
    inverse_norms: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a similarity matrix: candidates for negatives.

    Attributes:
        embeddings: (N, D), of the rows' dtype.
        ids: (N, P') int64; -1 matches nothing. Given together with `Rows.ids`.
        groups: (N,) int64. Given together with `Rows.groups`.
        owners: (N,) int64, the only row that sees the column, or -1 for all rows. With `Rows.owner`.
        guide: (N, G). Given together with `Rows.guide`.
        inverse_norms: (M, N). Given together with `Rows.inverse_norms`.
    """

    embeddings: Tensor
    ids: Tensor | None = None
    groups: Tensor | None = None
    owners: Tensor | None = None
    guide: Tensor | None = None
    inverse_norms: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Term:
    """One similarity matrix of the denominator: ``rows @ columns.T`` and the masks.

    Attributes:
        rows: R rows.
        columns: N columns.
        gain: 0-d, in the type of computation, factor of a negative's similarity in the exponent: the scale,
            plus the hardness weight.
        prefixes: M ascending dimensions, each ≤ D, at which similarities are taken; (D,) for the whole. A
            similarity is ``<row[:prefix], column[:prefix]>``, times both inverse norms where there are any.
    """

    rows: Rows
    columns: Columns
    gain: Tensor
    prefixes: tuple[int, ...]


class Filled(NamedTuple):
    """What is known of a strip of exponentials ``kept ? exp(gain · similarity - offset) : 0``.

    Attributes:
        offset: (M, rows) in nats, taken from every exponent of the row.
        total: (M, rows) row sums.
        largest: (M, rows) largest exponential of the row, 0 where nothing is kept.
        kept: (rows,) int64, columns that no rule leaves out (in the largest prefix), held out ones not
            counted; None where only `held_out` and `ids` decide, which are counted without the matrix.
    """

    offset: Tensor
    total: Tensor
    largest: Tensor
    kept: Tensor | None


Side = Literal["queries", "documents", "columns"]
"""The embeddings that gradients are made for: queries, documents, and the queries of all processes."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A term, and where its gradients belong.

    Attributes:
        term: the similarity matrix.
        left: the embeddings that the term's rows were taken from.
        left_rows: (R,) int64, their rows there; None: row i is row i.
        right: the embeddings that are the term's columns.
    """

    term: Term
    left: Side
    left_rows: Tensor | None
    right: Side


@dataclass(frozen=True, eq=False)
class Problem:
    """One loss: R rows, each with positives, over one or more similarity matrices with the same rows.

    Attributes:
        terms: the first holds the positives; the others only add negatives.
        positives: (R, P) int64, columns of the first term; -1 is padding.
        shares: (R, P) in the type of computation, the part of each positive in the row's loss; 0 for padding.
        queries: (R,) int64, the query that each row belongs to; None: row i is query i.
        rows_per_query: consecutive rows of each query.
        scale: 0-d, factor of a similarity in a logit.
        focal: exponent of the focal factor, 0 for none.
        prefix_weights: M weights of the prefixes' losses in the whole loss.
    """

    terms: tuple[Placed, ...]
    positives: Tensor
    shares: Tensor
    queries: Tensor | None
    rows_per_query: int
    scale: Tensor
    focal: float
    prefix_weights: tuple[float, ...]
