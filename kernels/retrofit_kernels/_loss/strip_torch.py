"""Strips of exponentials in plain torch, worked on in column tiles; also what every CPU runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from retrofit_kernels._loss.mix_torch import mix_strip
from retrofit_kernels._loss.problem import Filled, Term
from retrofit_kernels._loss.rowwise import segments
from retrofit_kernels._shared.pairs import (
    PADDING,
    StripEntries,
    find_pairs,
    strip_bounds,
    strip_entries,
)
from retrofit_kernels.linear import linear_in

CPU_STRIP_ROWS = 1024
"""Higher strips are no faster on a CPU. Of 512 rows, a step of 8192 queries takes 1.06 to 1.12 times its
three products, not 1.00 to 1.06."""
CPU_STRIP_BYTES = 128 << 20
"""Beyond this a strip gets lower: with 131,072 queries and as many documents of 384 dimensions, strip and
gradients then stay below 600 MB in fp32, where the matrix of logits would take 64 GiB."""
CPU_TILE_BYTES = 8 << 20
"""Logits pass through exp, masks and sums while they are still in the cache. Smaller tiles would mean more
parallel regions, each of which waits for the slowest thread on a busy machine."""
GPU_TILE_BYTES = 32 << 20
"""Beside the strip there are up to four tiles: logits, a guide's similarities, and masks."""
SAFE_SUM = 1e30
"""Above this row sum, sums and their reciprocals come near the ends of the fp32 range."""
LOG2_E = math.log2(math.e)
"""Exponentials are powers of two: measured on a CPU, exp2 takes a quarter of the time of exp."""
EXPONENTS = {torch.float32: (-115.0, 127.0), torch.float64: (-1009.0, 1023.0)}
"""Exponents are held in this range: what under- or overflows takes 10 to 35 times as long on a CPU.
The lower end leaves room for products that are not subnormal; the upper one is above any safe sum."""
UNSHIFTED = 99.0
"""Largest sum of exponentials, as a power of two, that needs no offset: `SAFE_SUM` in round numbers. Then no
exponent is near the ends of the range either, and two of five passes over the strip are saved."""
PAIRS_PER_ENTRY = 1 / 32
"""Masked pairs per strip entry: their indices then need about as much memory as the strip."""


class TorchStrips:
    """Fills the strips of one term.

    Args:
        term: the similarity matrix, its embeddings in the type of computation and contiguous.
        height: rows of the highest strip.
    """

    def __init__(self, term: Term, height: int) -> None:
        self.term = term
        columns = term.columns.embeddings
        self.dtype = columns.dtype
        self.pairs = None
        if term.rows.ids is not None and term.columns.ids is not None:
            self.pairs = find_pairs(term.rows.ids, term.columns.ids)
        tile_bytes = CPU_TILE_BYTES if columns.device.type == "cpu" else GPU_TILE_BYTES
        width = max(64, tile_bytes // (height * columns.element_size()) // 64 * 64)
        width = min(width, max(1, len(columns)))
        self.tiles = [slice(begin, begin + width) for begin in range(0, len(columns), width)]
        self.scratch = columns.new_empty(height * min(width, len(columns)))
        self.dense = any(
            tensor is not None
            for tensor in (
                term.rows.groups,
                term.rows.owner,
                term.rows.threshold,
                term.rows.guide_threshold,
            )
        )
        self.tile_groups = _tile_groups(term, self.tiles)
        self.unshifted = _needs_no_offset(term)

    def bounds(self, rows: int, height: int) -> list[tuple[int, int]]:
        """Cut all rows into strips whose masked pairs need about as much memory as the strip at most."""
        columns = len(self.term.columns.embeddings)
        return strip_bounds(rows, height, self.pairs, max(columns, int(height * columns * PAIRS_PER_ENTRY)))

    def fill(self, begin: int, end: int, preferred: Tensor, entries: Tensor | None) -> Filled:
        """Exponentials of the rows `begin` … `end` - 1.

        Args:
            begin: first row.
            end: row after the last.
            preferred: (M, rows) offset that is taken where one is needed, and no sum overflows with it.
            entries: (M, rows, N) to fill, or None if the sums are enough.
        """
        strip = self._strip(begin, end, entries)
        if self.unshifted:
            preferred = torch.zeros_like(preferred)
        total, largest, kept = self._exponentials(strip, preferred)
        if not bool((total < SAFE_SUM).all()):  # NaN counts as too large
            preferred = self._largest_logits(strip, preferred * LOG2_E) / LOG2_E
            total, largest, kept = self._exponentials(strip, preferred)
        return Filled(preferred, total, largest, self._kept(strip, kept))

    def mix(
        self, begin: int, end: int, entries: Tensor, factor: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From the prefixes' exponentials to the segments' derivatives; see `mix_strip`."""
        rows, columns = self.term.rows.inverse_norms, self.term.columns.inverse_norms
        assert rows is not None and columns is not None
        return mix_strip(entries, factor, offset, self.term.gain, (rows[:, begin:end], columns), self.tiles)

    def _strip(self, begin: int, end: int, entries: Tensor | None) -> _Strip:
        rows = self.term.rows.embeddings[begin:end] * (self.term.gain * LOG2_E)
        return _Strip(begin, end, rows, entries, self._held_out(begin, end))

    def _exponentials(self, strip: _Strip, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total, largest = torch.zeros_like(offset), torch.zeros_like(offset)
        powers = offset * LOG2_E
        kept = torch.zeros(strip.end - strip.begin, dtype=torch.int64, device=offset.device)
        for number, prefix, logits, mask in self._tiles(strip):
            if not self.unshifted:
                logits.sub_(powers[prefix].unsqueeze(1)).clamp_(*EXPONENTS[logits.dtype])
            entries = strip.entries
            tile = logits if entries is None else entries[prefix, :, self.tiles[number]]
            torch.exp2(logits, out=tile)
            self._leave_out(strip, number, tile, mask, 0.0)
            total[prefix] += tile.sum(1)
            torch.maximum(largest[prefix], tile.amax(1), out=largest[prefix])
            if self.dense and prefix == len(offset) - 1:
                kept += tile.count_nonzero(1)
        return total, largest, kept

    def _largest_logits(self, strip: _Strip, at_least: Tensor) -> Tensor:
        """(M, rows) largest logit that is not left out, as a power of two.

        It costs the products once more (2u), and is needed only where a negative beats its positive by about
        69 in scaled logits.
        """
        largest = at_least.clone()
        for number, prefix, tile, mask in self._tiles(strip):
            self._leave_out(strip, number, tile, mask, -torch.inf)
            torch.maximum(largest[prefix], tile.amax(1), out=largest[prefix])
        return largest

    def _tiles(self, strip: _Strip) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
        """Number of each column tile, each prefix, the logits (as powers of two) there, and a mask."""
        for number, columns in enumerate(self.tiles):
            if not self._groups_meet(strip, number):
                if strip.entries is not None:
                    strip.entries[:, :, columns] = 0
                continue
            common = self._common_mask(strip, columns)
            for prefix, logits in enumerate(self._logits(strip, columns)):
                yield number, prefix, logits, self._with_threshold(strip, prefix, logits, common)

    def _logits(self, strip: _Strip, columns: slice) -> Iterator[Tensor]:
        """Gain times similarity at each prefix, as a power of two."""
        rows, right = strip.rows, self.term.columns.embeddings[columns]
        scratch = self.scratch[: len(rows) * len(right)].view(len(rows), len(right))
        norms = self.term.rows.inverse_norms, self.term.columns.inverse_norms
        if norms[0] is None or norms[1] is None:
            yield linear_in(scratch, rows, right)
            return
        for prefix, part in enumerate(segments(self.term.prefixes)):
            if prefix == 0:
                torch.mm(rows[:, part], right[:, part].T, out=scratch)
            else:
                torch.addmm(scratch, rows[:, part], right[:, part].T, out=scratch)
            target = torch.empty_like(scratch) if strip.entries is None else strip.entries[prefix, :, columns]
            torch.mul(scratch, norms[0][prefix, strip.begin : strip.end].unsqueeze(1), out=target)
            yield target.mul_(norms[1][prefix, columns])

    def _groups_meet(self, strip: _Strip, number: int) -> bool:
        """Whether a tile can hold a pair of one group: in sorted batches most of them cannot."""
        if self.tile_groups is None or self.term.rows.groups is None:
            return True
        rows = self.term.rows.groups[strip.begin : strip.end]
        low, high = self.tile_groups[number]
        return bool(((rows >= low) & (rows <= high)).any())

    def _common_mask(self, strip: _Strip, columns: slice) -> Tensor | None:
        """(rows, tile) what is left out at every prefix, or None if no rule but the sparse ones is in use."""
        rows, right = self.term.rows, self.term.columns
        inside = slice(strip.begin, strip.end)
        masks = []
        if rows.groups is not None and right.groups is not None:
            masks.append(rows.groups[inside].unsqueeze(1) != right.groups[columns])
        if rows.owner is not None and right.owners is not None:
            owners = right.owners[columns]
            masks.append((owners != rows.owner[inside].unsqueeze(1)) & (owners != PADDING))
        if rows.guide is not None and right.guide is not None and rows.guide_threshold is not None:
            similarities = torch.mm(rows.guide[inside], right.guide[columns].T)
            masks.append(similarities > rows.guide_threshold[inside].unsqueeze(1))
        for mask in masks[1:]:
            masks[0] |= mask
        return masks[0] if masks else None

    def _with_threshold(
        self, strip: _Strip, prefix: int, logits: Tensor, common: Tensor | None
    ) -> Tensor | None:
        if self.term.rows.threshold is None:
            return common
        threshold = self.term.rows.threshold[prefix, strip.begin : strip.end] * (self.term.gain * LOG2_E)
        mask = logits > threshold.unsqueeze(1)
        return mask if common is None else mask.logical_or_(common)

    def _leave_out(self, strip: _Strip, number: int, tile: Tensor, mask: Tensor | None, value: float) -> None:
        if mask is not None:
            tile.masked_fill_(mask, value)
        strip.held_out.fill(tile, number, value)

    def _held_out(self, begin: int, end: int) -> StripEntries:
        """The strip's entries that are no negatives: each row's own columns and those of equal id."""
        own = self.term.rows.held_out[begin:end]
        rows, place = (own != PADDING).nonzero(as_tuple=True)
        columns = own[rows, place]
        if self.pairs is not None:
            more_rows, more_columns = self.pairs.expand(begin, end)
            rows, columns = torch.cat([rows, more_rows]), torch.cat([columns, more_columns])
        return strip_entries(rows, columns, [tile.start for tile in self.tiles])

    def _kept(self, strip: _Strip, counted: Tensor) -> Tensor | None:
        """(rows,) how many columns are kept, where they can be fewer than all but the held out ones."""
        if self.dense:
            return counted
        if self.pairs is None or self.term.rows.ids is None or self.term.columns.ids is None:
            return None
        inside = slice(strip.begin, strip.end)
        own = self.term.rows.held_out[inside]
        ids = self.term.rows.ids[inside, None, :, None]
        own_ids = self.term.columns.ids[own.clamp(min=0)].unsqueeze(2)
        matched = ((ids == own_ids) & (ids != PADDING)).flatten(2).any(2)
        extra = ((own != PADDING) & ~matched).sum(1)
        masked = self.pairs.per_row[inside].to(own.device)
        return len(self.term.columns.embeddings) - masked - extra


@dataclass(frozen=True, eq=False)
class _Strip:
    """Some rows of the term.

    Attributes:
        begin: first row.
        end: row after the last.
        rows: (rows, D) embeddings times gain, in powers of two.
        entries: (M, rows, N) to fill, or None.
        held_out: entries that are no negatives.
    """

    begin: int
    end: int
    rows: Tensor
    entries: Tensor | None
    held_out: StripEntries


def _needs_no_offset(term: Term) -> bool:
    """Whether no sum of exponentials can leave the safe range, whatever the embeddings' angles are."""
    columns = term.columns.embeddings
    if columns.device.type != "cpu" or not len(columns) or not len(term.rows.embeddings):
        return False  # on a GPU, reading the bound would wait for it
    longest = 1.0
    if term.rows.inverse_norms is None:
        sides = (term.rows.embeddings, columns)
        longest = math.prod(float(torch.linalg.vector_norm(side, dim=1).max()) for side in sides)
    return abs(float(term.gain)) * LOG2_E * longest + math.log2(len(columns)) <= UNSHIFTED


def _tile_groups(term: Term, tiles: list[slice]) -> list[tuple[int, int]] | None:
    """The smallest and largest group of each tile; None on a GPU, where reading them would wait for it."""
    groups = term.columns.groups
    if groups is None or groups.device.type != "cpu":
        return None
    return [(int(groups[tile].min()), int(groups[tile].max())) for tile in tiles]
