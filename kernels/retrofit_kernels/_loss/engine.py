"""The loss and its gradients strip by strip: exponentials, row losses, two products for the gradients."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from retrofit_kernels._loss.gradients import Gradients, Positives, Share, Wanted
from retrofit_kernels._loss.operands import Operands, Settings
from retrofit_kernels._loss.problem import Filled, Placed, Problem, Term
from retrofit_kernels._loss.row_loss import row_loss
from retrofit_kernels._loss.rowwise import prefix_products
from retrofit_kernels._loss.strip_torch import CPU_STRIP_BYTES, CPU_STRIP_ROWS, SAFE_SUM, TorchStrips
from retrofit_kernels._loss.terms import problems
from retrofit_kernels._shared.pairs import PADDING

LOG_SAFE_SUM = math.log(SAFE_SUM)


class Result(NamedTuple):
    """What one pass finds out.

    Attributes:
        loss: (B,) of each query, its weight not applied.
        correct: (B,) share of each query's positives that score above all its negatives.
        masked: 0-d int64, (query, document) pairs that a rule leaves out, the queries' own positives not
            counted.
        gradients: of the weighted sum of the losses.
    """

    loss: Tensor
    correct: Tensor
    masked: Tensor
    gradients: Gradients


class Strips(Protocol):
    """A backend: fills the strips of one term; see `TorchStrips`.

    Attributes:
        term: the similarity matrix.
        dtype: of the exponentials.
    """

    term: Term
    dtype: torch.dtype

    def bounds(self, rows: int, height: int) -> list[tuple[int, int]]:
        """First row and end of each strip of at most `height` rows."""

    def fill(self, begin: int, end: int, preferred: Tensor, entries: Tensor | None) -> Filled:
        """Exponentials of the rows `begin` … `end` - 1, into `entries` unless the sums are enough."""

    def mix(
        self, begin: int, end: int, entries: Tensor, factor: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From the prefixes' exponentials to the segments' derivatives; see `mix_strip`."""


def contrast(
    operands: Operands, settings: Settings, wanted: Wanted, weights: Tensor | None, weight: float = 1.0
) -> Result:
    """Losses of all queries, and the gradients of their sum.

    Args:
        operands: embeddings, positives, masks.
        settings: everything else.
        wanted: gradients to compute.
        weights: (B,) weight of each query's loss in the gradients; all one by default.
        weight: of the sum of all losses in the gradients.
    """
    loss = operands.scale.new_zeros(len(operands.queries.positives))
    correct, masked = torch.zeros_like(loss), torch.zeros_like(loss[:0], dtype=torch.int64).sum()
    gradients = Gradients.zeros(operands, wanted)
    for number, problem in enumerate(problems(operands, settings)):
        engine = _Engine(problem, settings, wanted, weights)
        for begin, end in engine.bounds:
            losses, hits, left_out = engine.strip(begin, end, gradients)
            rows = slice(begin, end) if problem.queries is None else problem.queries[begin:end]
            _add_to(loss, rows, losses)
            if number == 0:  # accuracy and masks are reported for finding documents, not queries
                _add_to(correct, rows, hits)
                masked += left_out
    gradients.multiply(operands.scale, weight)
    return Result(loss, correct, masked, gradients)


def _add_to(target: Tensor, rows: slice | Tensor, values: Tensor) -> None:
    if isinstance(rows, slice):
        target[rows] += values
    else:
        target.index_put_((rows,), values, accumulate=True)


class _Engine:
    """Works through the strips of one problem."""

    def __init__(self, problem: Problem, settings: Settings, wanted: Wanted, weights: Tensor | None) -> None:
        self.problem, self.settings, self.wanted, self.weights = problem, settings, wanted, weights
        height = _height(problem, settings)
        self.strips = [_strips(placed.term, height, settings) for placed in problem.terms]
        self.bounds = self.strips[0].bounds(len(problem.positives), height)
        self.buffers = [
            _buffer(strips.term, height, strips.dtype) if wanted.any() else None for strips in self.strips
        ]
        self.prefix_weights = problem.scale.new_tensor(problem.prefix_weights)

    def strip(self, begin: int, end: int, gradients: Gradients) -> tuple[Tensor, Tensor, int | Tensor]:
        """Losses, hits and number of masked pairs of some rows; their part of the gradients is added.

        Args:
            begin: first row.
            end: row after the last.
            gradients: to add to.
        """
        problem = self.problem
        columns, shares = problem.positives[begin:end], problem.shares[begin:end]
        padding = columns == PADDING
        similarity = self._positives(begin, end)
        preferred = (similarity * problem.scale).masked_fill(padding, -torch.inf).amax(2)
        preferred = preferred.masked_fill(padding.all(1), 0.0)  # a row of padding has no positive
        entries = [self._entries(number, end - begin) for number in range(len(problem.terms))]
        filled = [
            strips.fill(begin, end, preferred, strip)
            for strips, strip in zip(self.strips, entries, strict=True)
        ]
        offset, total = _combine(filled, preferred)
        excess = (similarity * problem.scale - offset.unsqueeze(2)).masked_fill_(padding, 0.0)
        row = row_loss(excess, total, shares, problem.focal)
        if self.wanted.any():
            weight = self._row_weights(begin, end)
            positives = Positives(columns.clamp(min=0), similarity, row.positive * weight.unsqueeze(2))
            for number, (placed, strip) in enumerate(zip(problem.terms, entries, strict=True)):
                assert strip is not None
                factor = row.factor * weight * (filled[number].offset - offset).exp()
                share = self._share(number, placed, (begin, end), strip, factor, filled[number].offset)
                gradients.add(share, positives if number == 0 else None)
        loss = (row.loss * self.prefix_weights.unsqueeze(1)).sum(0)
        return loss, self._hits(filled[0], similarity, shares), self._left_out(filled[0], begin, end)

    def _entries(self, number: int, rows: int) -> Tensor | None:
        """(M, rows, N) part of a term's buffer."""
        buffer, term = self.buffers[number], self.problem.terms[number].term
        if buffer is None:
            return None
        columns = len(term.columns.embeddings)
        shape = len(term.prefixes), rows, _pitch(columns)
        return buffer[: math.prod(shape)].view(shape)[..., :columns]

    def _positives(self, begin: int, end: int) -> Tensor:
        """(M, rows, P) similarities."""
        rows, columns = self.problem.terms[0].term.rows, self.problem.terms[0].term.columns
        norms = None if rows.inverse_norms is None else rows.inverse_norms[:, begin:end]
        return prefix_products(
            rows.embeddings[begin:end],
            columns.embeddings,
            self.problem.positives[begin:end],
            self.settings.prefixes,
            (norms, columns.inverse_norms),
            self.settings.strip_bytes,
        )

    def _row_weights(self, begin: int, end: int) -> Tensor:
        """(M, rows) weight of each row and prefix in the gradients."""
        weights = self.prefix_weights.unsqueeze(1)
        if self.weights is None:
            return weights.expand(-1, end - begin)
        inside = slice(begin, end)
        rows = (
            self.weights[inside]
            if self.problem.queries is None
            else self.weights[self.problem.queries[inside]]
        )
        return weights * rows

    def _share(
        self,
        number: int,
        placed: Placed,
        bounds: tuple[int, int],
        entries: Tensor,
        factor: Tensor,
        offset: Tensor,
    ) -> Share:
        if not self.settings.renormalise:
            return Share(placed, *bounds, entries, factor[0], None, None)
        moments = self.strips[number].mix(*bounds, entries, factor, offset)
        return Share(placed, *bounds, entries, None, *moments)

    def _hits(self, filled: Filled, similarity: Tensor, shares: Tensor) -> Tensor:
        """(rows,) share of the positives above all negatives, at the longest prefix."""
        gain = self.problem.terms[0].term.gain
        own = (similarity[-1] * gain - filled.offset[-1].unsqueeze(1)).exp()
        return ((filled.largest[-1].unsqueeze(1) < own) * shares).sum(1)

    def _left_out(self, filled: Filled, begin: int, end: int) -> int | Tensor:
        """Pairs that a rule leaves out: neither kept nor the query's own positives."""
        if filled.kept is None:
            return 0
        columns = self.problem.terms[0].term.columns.embeddings
        own = (self.problem.terms[0].term.rows.held_out[begin:end] != PADDING).sum(1)
        left_out = len(columns) - own - filled.kept
        if self.problem.queries is not None:  # several rows of one query: count the first
            numbers = torch.arange(begin, end, device=own.device)
            left_out *= numbers % self.problem.rows_per_query == 0
        return left_out.sum()


def _combine(filled: list[Filled], preferred: Tensor) -> tuple[Tensor, Tensor]:
    """One offset for all terms of a row, and the sum of their exponentials.

    The offset is the preferred one (a positive's logit, so that small losses stay exact) where no sum then
    leaves the safe range.
    """
    offset = preferred
    for strip in filled:
        offset = torch.maximum(offset, strip.total.log() + strip.offset - LOG_SAFE_SUM)
    return offset, torch.stack([strip.total * (strip.offset - offset).exp() for strip in filled]).sum(0)


def _height(problem: Problem, settings: Settings) -> int:
    """Rows of a strip within the memory budget."""
    columns = sum(len(placed.term.columns.embeddings) for placed in problem.terms)
    itemsize = problem.terms[0].term.rows.embeddings.element_size()
    row_bytes = max(1, columns * len(settings.prefixes) * itemsize)
    height = min(len(problem.positives), settings.strip_bytes // row_bytes)
    if problem.scale.device.type == "cpu":
        height = min(height, CPU_STRIP_ROWS, CPU_STRIP_BYTES // row_bytes)
    return max(1, height)


def _buffer(term: Term, height: int, dtype: torch.dtype) -> Tensor:
    """Room for the exponentials of the highest strip at all prefixes."""
    columns = term.columns.embeddings
    numbers = len(term.prefixes) * height * _pitch(len(columns))
    return torch.empty(numbers, dtype=dtype, device=columns.device)


def _pitch(columns: int) -> int:
    """Room for a row: whole groups of 16, so that every row begins where it can be read in long pieces."""
    return -(-columns // 16) * 16


def _strips(term: Term, height: int, settings: Settings) -> Strips:
    if settings.backend == "triton":
        from retrofit_kernels._loss.strip_triton import TritonStrips

        return TritonStrips(term, settings.precision)
    return TorchStrips(term, height)
