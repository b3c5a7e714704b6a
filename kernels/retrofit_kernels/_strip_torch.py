"""InfoNCE on row strips of logits in plain torch: loss and gradients in three matrix products per strip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retrofit_kernels._pairs import MatchingPairs, StripEntries, strip_bounds, strip_entries

CPU_STRIP_ROWS = 512
"""Higher strips are no faster on a CPU: from here on the products run at their peak rate."""
CPU_TILE_BYTES = 8 << 20
"""Logits pass through exp, masks and sums while they are still in the cache. Smaller tiles would mean more
parallel regions, each of which waits for the slowest thread on a busy machine."""
SAFE_SUM = 1e30
"""Above this row sum, sums and their reciprocals come near the ends of the fp32 range."""
EXPONENTS = {torch.float32: (-80.0, 88.0), torch.float64: (-700.0, 709.0)}
"""Exponents are held in this range: exp of what under- or overflows takes 10 to 35 times as long on a CPU.
The lower end leaves room for products that are not subnormal; the upper one is above any safe sum."""
PAIRS_PER_ENTRY = 1 / 32
"""Masked pairs per strip entry: their indices then need about as much memory as the strip."""


@dataclass(frozen=True, eq=False)
class Problem:
    """The operands of one loss, all detached and in the type of computation.

    Attributes:
        queries: (B, D), contiguous.
        documents: (N, D), contiguous.
        scale: 0-d, inverse temperature.
        positives: (B,) int64, column of each query's positive.
        masked: pairs that are no negatives, or None.
        strip_bytes: memory budget of one strip of logits.
    """

    queries: Tensor
    documents: Tensor
    scale: Tensor
    positives: Tensor
    masked: MatchingPairs | None
    strip_bytes: int


@dataclass(frozen=True)
class Wanted:
    """Which gradients to compute; what is not wanted is not paid for.

    Attributes:
        queries: 2u FLOP.
        documents: 2u FLOP.
        scale: 2u FLOP, shared with `queries`.
    """

    queries: bool = False
    documents: bool = False
    scale: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """Losses per query, and the gradients of their (weighted) sum.

    Attributes:
        loss: (B,).
        correct: (B,) bool, whether the positive outranks every negative.
        queries: (B, D), or None.
        documents: (N, D), or None.
        scale: 0-d, or None.
    """

    loss: Tensor
    correct: Tensor
    queries: Tensor | None
    documents: Tensor | None
    scale: Tensor | None


def contrast(problem: Problem, wanted: Wanted, weights: Tensor | None = None) -> Result:
    """Losses of all queries and the wanted gradients of Σ weights[i]·loss[i], strip by strip.

    With s the scaled logits, c the positive's and o an offset per row, ``E = exp(s - o)`` over the
    negatives, ``l = Σ E`` and ``e = exp(c - o)``: the loss is ``log(e + l) + o - c``. Its derivative with
    respect to s is ``E / (e + l)`` for a negative and ``-l / (e + l)`` for the positive. So once ``-l``
    stands in the positive's place of E, two plain products with E give both gradients, and ``p - 1`` is
    never formed: nothing cancels when the loss is nearly 0.

    Args:
        problem: operands.
        wanted: gradients to compute.
        weights: (B,) weight of each query's loss in the gradients; all one by default.
    """
    queries, documents, scale = problem.queries, problem.documents, problem.scale
    loss = queries.new_empty(len(queries))
    correct = torch.empty_like(loss, dtype=torch.bool)
    to_queries = torch.empty_like(queries) if wanted.queries or wanted.scale else None
    to_documents = torch.zeros_like(documents) if wanted.documents else None
    buffer, bounds, tiles = _layout(problem)
    for begin, end in bounds:
        rows = slice(begin, end)
        scaled, own = queries[rows] * scale, problem.positives[rows]
        own_logit = (scaled * documents[own]).sum(1)
        strip = _Strip(buffer[: end - begin], scaled, documents, tiles, _held_out(problem, begin, end, tiles))
        offset = own_logit
        total, largest = strip.exponentials(offset)
        if not bool((total < SAFE_SUM).all()):  # NaN counts as too large
            offset = strip.largest_logit(own_logit)
            total, largest = strip.exponentials(offset, have_logits=True)
        own_exponential = torch.exp(own_logit - offset)
        loss[rows] = torch.log1p(total + torch.expm1(own_logit - offset)) + (offset - own_logit)
        correct[rows] = largest < own_exponential
        if to_queries is None and to_documents is None:
            continue
        strip.write(own, -total)
        factor = 1 / (own_exponential + total)
        if weights is not None:
            factor *= weights[rows]
        if to_queries is not None:
            torch.mm(strip.entries, documents, out=to_queries[rows])
            to_queries[rows] *= (factor * scale).unsqueeze(1)
        if to_documents is not None:
            weighted = scaled.mul_(factor.unsqueeze(1))
            torch.addmm(to_documents, strip.entries.T, weighted, out=to_documents)
    # a logit is scale·<q, d>, so <q, ∂/∂q> = scale·∂/∂scale holds exactly: no further pass is needed
    to_scale = (queries * to_queries).sum() / scale if to_queries is not None and wanted.scale else None
    return Result(loss, correct, to_queries if wanted.queries else None, to_documents, to_scale)


def _layout(problem: Problem) -> tuple[Tensor, list[tuple[int, int]], list[tuple[int, int]]]:
    """The strips' common buffer, the row bounds of all strips, the column bounds of a strip's tiles."""
    rows, columns = len(problem.queries), len(problem.documents)
    itemsize = problem.queries.element_size()
    height = max(1, min(rows, problem.strip_bytes // max(1, columns * itemsize)))
    width = max(1, columns)
    if problem.queries.device.type == "cpu":
        height = min(height, CPU_STRIP_ROWS)
        width = min(width, max(64, CPU_TILE_BYTES // (height * itemsize) // 64 * 64))
    max_pairs = max(columns, int(height * columns * PAIRS_PER_ENTRY))
    bounds = strip_bounds(rows, height, problem.masked, max_pairs)
    tiles = [(begin, min(begin + width, columns)) for begin in range(0, columns, width)]
    return problem.queries.new_empty(height, columns), bounds, tiles


def _held_out(problem: Problem, begin: int, end: int, tiles: list[tuple[int, int]]) -> StripEntries:
    """The strip's entries that are no negatives: each query's own positive and the masked pairs."""
    columns = problem.positives[begin:end]
    rows = torch.arange(end - begin, device=columns.device)
    if problem.masked is not None:
        more_rows, more_columns = problem.masked.expand(begin, end)
        rows, columns = torch.cat([rows, more_rows]), torch.cat([columns, more_columns])
    return strip_entries(rows, columns, len(problem.documents), [start for start, _ in tiles])


@dataclass(frozen=True, eq=False)
class _Strip:
    """Some rows of the logits, worked on in column tiles.

    Attributes:
        entries: (rows, N) buffer: logits, then their exponentials.
        scaled: (rows, D) queries times scale.
        documents: (N, D).
        tiles: column bounds.
        held_out: entries that are no negatives.
    """

    entries: Tensor
    scaled: Tensor
    documents: Tensor
    tiles: list[tuple[int, int]]
    held_out: StripEntries

    def exponentials(self, offset: Tensor, have_logits: bool = False) -> tuple[Tensor, Tensor]:
        """Fill the strip with exp(logit - offset), 0 where held out; return each row's sum and maximum."""
        total = torch.zeros_like(offset)
        largest = torch.zeros_like(offset)
        for number, (begin, end) in enumerate(self.tiles):
            tile = self.entries[:, begin:end] if have_logits else self._logits(number)
            tile.sub_(offset.unsqueeze(1)).clamp_(*EXPONENTS[tile.dtype]).exp_()
            self.held_out.fill(self.entries, number, 0.0)
            total += tile.sum(1)
            torch.maximum(largest, tile.amax(1), out=largest)
        return total, largest

    def largest_logit(self, at_least: Tensor) -> Tensor:
        """Fill the strip with logits, -inf where held out; return each row's largest, not below `at_least`.

        It costs one more product (2u), and is needed only where a negative beats its positive by about 69 in
        scaled logits.
        """
        largest = at_least
        for number in range(len(self.tiles)):
            tile = self._logits(number)
            self.held_out.fill(self.entries, number, -torch.inf)
            largest = torch.maximum(largest, tile.amax(1))
        return largest

    def write(self, columns: Tensor, values: Tensor) -> None:
        """Write one value into each row, at the given column."""
        self.entries.scatter_(1, columns.unsqueeze(1), values.unsqueeze(1))

    def _logits(self, number: int) -> Tensor:
        begin, end = self.tiles[number]
        tile = self.entries[:, begin:end]
        return torch.mm(self.scaled, self.documents[begin:end].T, out=tile)
