"""Gradients of the embeddings and the scale, added up strip by strip in the type of computation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retrofit_kernels._loss.operands import Operands
from retrofit_kernels._loss.problem import Placed, Side
from retrofit_kernels._loss.rowwise import from_each_prefix_on, segments
from retrofit_kernels.linear import linear_in


@dataclass(frozen=True)
class Wanted:
    """Which gradients to compute; what is not wanted is not paid for.

    Attributes:
        queries: 2u FLOP.
        documents: 2u FLOP.
        columns: as columns of the other queries' losses.
        scale: 2u FLOP, shared with `queries`.
    """

    queries: bool = False
    documents: bool = False
    columns: bool = False
    scale: bool = False

    def any(self) -> bool:
        """Whether there is anything to compute beyond the loss."""
        return self.queries or self.documents or self.columns or self.scale


@dataclass(frozen=True, eq=False)
class Share:
    """What a strip of one term gives to the gradients: derivatives by its similarities, but for the scale.

    Attributes:
        placed: the term.
        begin: first row.
        end: row after the last.
        entries: (K, rows, N): each of the K segments of the dimensions has its own.
        factor: (rows,) factor of each row of `entries`, or None.
        by_row: (M, rows) Σ over columns of derivative · similarity, and
        by_column: (M, N) Σ over rows, where embeddings are made unit vectors; else None.
    """

    placed: Placed
    begin: int
    end: int
    entries: Tensor
    factor: Tensor | None
    by_row: Tensor | None
    by_column: Tensor | None


@dataclass(frozen=True, eq=False)
class Positives:
    """What a strip's positives give to the gradients.

    Attributes:
        columns: (rows, P) columns of the first term; those of padding may be any.
        similarity: (M, rows, P).
        derivative: (M, rows, P) by the positives' logits, 0 for padding.
    """

    columns: Tensor
    similarity: Tensor
    derivative: Tensor


@dataclass(eq=False)
class Gradients:
    """The sums so far, but for the scale; None for what is not wanted.

    In one process columns are queries, and share their sum.

    Attributes:
        queries: (B, D).
        documents: (N, D).
        columns: (C, D).
        scale: 0-d.
        dtype: type of computation.
    """

    queries: Tensor | None
    documents: Tensor | None
    columns: Tensor | None
    scale: Tensor | None
    dtype: torch.dtype

    @staticmethod
    def zeros(operands: Operands, wanted: Wanted) -> Gradients:
        """No gradient yet."""
        scale = operands.scale

        def zeros(embeddings: Tensor, is_wanted: bool) -> Tensor | None:
            return torch.zeros_like(embeddings, dtype=scale.dtype) if is_wanted else None

        queries = zeros(operands.queries.embeddings, wanted.queries)
        same = operands.columns is operands.queries
        return Gradients(
            queries,
            zeros(operands.documents.embeddings, wanted.documents),
            queries if same else zeros(operands.columns.embeddings, wanted.columns),
            torch.zeros_like(scale) if wanted.scale else None,
            scale.dtype,
        )

    def multiply(self, scale: Tensor, weight: float) -> None:
        """Turn the derivatives by similarities into those by logits, times a weight of the whole.

        Only now, and not strip by strip: a converged row's factor is 1, and its 16-bit product with the row
        then is exact.
        """
        parts = [self.queries, self.documents]
        parts += [] if self.columns is self.queries else [self.columns]
        for part in parts:
            if part is not None:
                part *= scale * weight
        if self.scale is not None:
            self.scale *= weight

    def of(self, side: Side) -> Tensor | None:
        """The sum for one kind of embeddings."""
        return {"queries": self.queries, "documents": self.documents, "columns": self.columns}[side]

    def add(self, share: Share, positives: Positives | None) -> None:
        """Add a strip of one term, with its positives if it is the first term."""
        if self.of(share.placed.left) is not None or (self.scale is not None and share.by_row is None):
            self._add_rows(share, positives)
        if self.scale is not None and share.by_row is not None:
            self.scale += share.by_row.sum()
            if positives is not None:
                self.scale += (positives.similarity * positives.derivative).sum()
        if self.of(share.placed.right) is not None:
            self._add_columns(share, positives)

    def _add_rows(self, share: Share, positives: Positives | None) -> None:
        term = share.placed.term
        left = term.rows.embeddings[share.begin : share.end]
        found = left.new_zeros(
            left.shape, dtype=self.dtype
        )  # what lies beyond the last prefix has no gradient
        for part, entries in zip(segments(term.prefixes), share.entries, strict=True):
            multiply(entries, term.columns.embeddings[:, part], found[:, part])
        if share.factor is not None:
            found *= share.factor.unsqueeze(1)
        for columns, weights in [] if positives is None else _by_slot(share, positives):
            others = term.columns.embeddings[columns]
            for part, weight in zip(segments(term.prefixes), weights, strict=True):
                found[:, part] += weight.unsqueeze(1) * others[:, part]
        if share.by_row is not None and term.rows.inverse_norms is not None:
            moment = share.by_row
            if positives is not None:
                moment = moment + (positives.similarity * positives.derivative).sum(2)
            _shrink(found, left, moment, term.rows.inverse_norms[:, share.begin : share.end], term.prefixes)
        if self.scale is not None and share.by_row is None:
            # A logit is scale·<row, column>, so the scale's derivative is <row, this>: no further pass.
            self.scale += (left * found).sum()
        target = self.of(share.placed.left)
        if target is not None:
            if share.placed.left_rows is None:
                target[share.begin : share.end] += found
            else:
                add_rows(target, share.placed.left_rows[share.begin : share.end], found)

    def _add_columns(self, share: Share, positives: Positives | None) -> None:
        term = share.placed.term
        target = self.of(share.placed.right)
        assert target is not None
        rows = term.rows.embeddings[share.begin : share.end].to(self.dtype)
        weighted = rows if share.factor is None else rows * share.factor.unsqueeze(1)
        for part, entries in zip(segments(term.prefixes), share.entries, strict=True):
            add_product(entries.T, weighted[:, part], target[:, part])
        for columns, weights in [] if positives is None else _by_slot(share, positives):
            spread = torch.zeros_like(rows)
            for part, weight in zip(segments(term.prefixes), weights, strict=True):
                torch.mul(rows[:, part], weight.unsqueeze(1), out=spread[:, part])
            add_rows(target, columns, spread)
        if share.by_column is not None and term.columns.inverse_norms is not None:
            moment = share.by_column
            if positives is not None:
                products = positives.similarity * positives.derivative
                add_rows(moment.T, positives.columns.flatten(), products.flatten(1).T)
            _shrink(target, term.columns.embeddings, moment, term.columns.inverse_norms, term.prefixes)


def _by_slot(share: Share, positives: Positives) -> list[tuple[Tensor, Tensor]]:
    """The P positives of the rows, one after the other: all of them would be P times as large as the rows.

    Of each, the (rows,) columns, and the (M, rows) derivatives by the products of each segment.
    """
    term, weights = share.placed.term, positives.derivative
    rows, columns = term.rows.inverse_norms, term.columns.inverse_norms
    if rows is not None and columns is not None:
        own = rows[:, share.begin : share.end].unsqueeze(2) * columns[:, positives.columns]
        weights = from_each_prefix_on(weights * own)
    return list(zip(positives.columns.unbind(1), weights.unbind(2), strict=True))


def _shrink(
    gradient: Tensor, embeddings: Tensor, moment: Tensor, inverse_norms: Tensor, prefixes: tuple[int, ...]
) -> None:
    """Take away what would only change the length of a prefix that is made a unit vector.

    With s = <x/|x|, y>, ∂s/∂x = y/|x| - s·x/|x|²: the moment is the sum of derivative · s.
    """
    weights = from_each_prefix_on(moment * inverse_norms.square())
    for part, weight in zip(segments(prefixes), weights, strict=True):
        gradient[:, part].addcmul_(embeddings[:, part].to(gradient.dtype), weight.unsqueeze(1), value=-1)


def add_rows(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """``target[rows[i]] += values[i]``; on a GPU by sorting, not by atomics: always in one order."""
    if target.device.type == "cpu":
        target.index_add_(0, rows, values)
    else:
        target.index_put_((rows,), values, accumulate=True)


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """``out = left @ right``; 16-bit operands (of `left`'s dtype) are added up in `out`'s."""
    if left.dtype == out.dtype:
        found = linear_in(out, left, right.T)
        if found is not out:
            out.copy_(found)
    elif out.device.type == "cpu":
        torch.mm(left.to(out.dtype), right.to(left.dtype).to(out.dtype), out=out)
    else:
        torch.mm(left, right.to(left.dtype), out_dtype=out.dtype, out=out)


def add_product(left: Tensor, right: Tensor, target: Tensor) -> None:
    """``target += left @ right``; 16-bit operands (of `left`'s dtype) are added up in `target`'s."""
    if left.dtype == target.dtype:
        torch.addmm(target, left, right, out=target)
    elif target.device.type == "cpu":
        torch.addmm(target, left.to(target.dtype), right.to(left.dtype).to(target.dtype), out=target)
    else:
        torch.addmm(target, left, right.to(left.dtype), out_dtype=target.dtype, out=target)
