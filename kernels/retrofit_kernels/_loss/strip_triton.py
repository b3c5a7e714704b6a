"""Strips of exponentials by Triton: what `strip_torch` does, in one kernel, never waiting for the GPU."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from retrofit_kernels._loss.mix_kernel import mix
from retrofit_kernels._loss.problem import Filled, Term
from retrofit_kernels._loss.strip_kernel import strip
from retrofit_kernels._loss.strip_masks import Masks, largest_item, masks_of
from retrofit_kernels._loss.strip_tuning import TUNED_SLOT, tuned_strip
from retrofit_kernels._shared.backend import capability
from retrofit_kernels.configs import Kind, StripConfig, autotuning, strip_config

GROUP = 8
"""Row tiles that are worked on together, so that column tiles are read from L2."""
SAFE_EXPONENT = 80.0
"""A row's sum stays below e^80, far enough from the end of fp32 at e^88.7."""
MIX_TILE = (32, 128)
MOST_MIXED = 65535 * MIX_TILE[0]
"""Rows that one launch of `mix` takes: a grid has no more blocks on its second axis."""
INTERPRETED = StripConfig(32, 64, 32, 4, 1)
"""Under the interpreter: small, so that small tests see several tiles."""


def strip_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the exponentials: fp32 for fp32, else bf16, for fp16 ends at e^11."""
    return torch.float32 if dtype == torch.float32 else torch.bfloat16


class TritonStrips:
    """Fills the strips of one term.

    Ids and groups are numbered anew in 32 bits, which halves the registers and instructions of the masks; it
    costs one sort of them. Embeddings may have any stride between rows; where the numbers of a row are not
    consecutive, they are copied.

    Args:
        term: the similarity matrix; embeddings fp16, bf16 or fp32, less than 2^31 rows and columns.
        precision: "tf32", "tf32x3" or "ieee", how fp32 embeddings are multiplied.
    """

    def __init__(self, term: Term, precision: str) -> None:
        self.term, self.precision = term, precision
        self.dtype = strip_dtype(term.columns.embeddings.dtype)
        self.masks = masks_of(term)
        self.gain = term.gain.to(term.columns.embeddings.device, torch.float32)
        self.rows, self.columns = _in_rows(term.rows.embeddings), _in_rows(term.columns.embeddings)
        self.longest_column = None
        if term.columns.inverse_norms is None and len(self.columns):
            self.longest_column = _lengths(self.columns).amax()
        self.itemsize = largest_item(self.columns, self.masks.guide_columns)
        self.kind = _kind(term, self.masks, self.itemsize, precision)

    def bounds(self, rows: int, height: int) -> list[tuple[int, int]]:
        """Cut all rows into strips, in whole tiles where there is room for a tile."""
        tile = _config(self.columns, self.itemsize, self.kind, True).block_m
        height = height // tile * tile or height
        return [(begin, min(begin + height, rows)) for begin in range(0, rows, height)]

    def fill(self, begin: int, end: int, preferred: Tensor, entries: Tensor | None) -> Filled:
        """Exponentials of the rows `begin` … `end` - 1; 0 where left out, or below 2^-126.

        Whether a row's sum could overflow with the preferred offset is decided on the device, by a bound
        (Cauchy-Schwarz). Where it could, the row's largest logit is found first, and is the offset if it is
        above the preferred one: 2u for the row tiles concerned, an almost empty launch if there are none.

        Args:
            begin: first row.
            end: row after the last.
            preferred: (M, rows) fp32 in nats, offset that is taken where no sum can overflow with it.
            entries: (M, rows, N) of `dtype` to fill, consecutive in N, or None if the sums are enough. With
                rows a multiple of 16 numbers apart it takes larger tiles and fewer stores; room after each
                row's N numbers, up to the next multiple of 16, is then filled with 0.
        """
        columns = len(self.columns)
        if begin == end or not columns:
            none = torch.zeros_like(preferred)
            counted = none.new_zeros(end - begin, dtype=torch.int64) if self.masks.counted else None
            return Filled(preferred, none, none, counted)
        with _on(self.columns.device):
            risky = self._risky(begin, end, preferred)
            largest = self._launch(begin, end, None, None, risky.any(0)).largest
            offset = torch.where(risky, torch.maximum(preferred, largest), preferred)
            offset = torch.where(offset == -torch.inf, 0.0, offset)  # no positive, and nothing kept
            return self._launch(begin, end, offset, entries, None)

    def mix(
        self, begin: int, end: int, entries: Tensor, factor: Tensor, offset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From the prefixes' exponentials to the segments' derivatives, in place.

        Args:
            begin: first row.
            end: row after the last.
            entries: (M, rows, N) exponentials, consecutive in N.
            factor: (M, rows) fp32.
            offset: (M, rows) fp32 that was taken from the exponents.

        Returns:
            (M, rows) and (M, N) fp32: row and column sums of ``factor · exponential · similarity``.
        """
        prefixes, rows, columns = entries.shape
        if rows > MOST_MIXED:
            cut, sizes = begin + MOST_MIXED, (MOST_MIXED, rows - MOST_MIXED)
            first, rest = zip(*(part.split(sizes, 1) for part in (entries, factor, offset)), strict=True)
            moments = self.mix(begin, cut, *first), self.mix(cut, end, *rest)
            return torch.cat([moments[0][0], moments[1][0]], 1), moments[0][1] + moments[1][1]
        height, width = MIX_TILE
        row_tiles, column_tiles = triton.cdiv(rows, height), triton.cdiv(columns, width)
        by_row = factor.new_zeros(prefixes, column_tiles, rows)
        by_column = factor.new_zeros(prefixes, row_tiles, columns)
        row_norms, column_norms = self.term.rows.inverse_norms, self.term.columns.inverse_norms
        assert row_norms is not None and column_norms is not None
        if entries.numel():
            with _on(entries.device):
                mix[(column_tiles, row_tiles)](
                    entries, factor.contiguous(), offset.contiguous(), self.gain,
                    row_norms[:, begin:end].contiguous(), column_norms.contiguous(), by_row, by_column,
                    prefixes, rows, columns, entries.stride(0), entries.stride(1),
                    BLOCK_M=height, BLOCK_N=width, num_warps=4, enable_fp_fusion=True,
                )  # fmt: skip
        return by_row.sum(1), by_column.sum(1)

    def _risky(self, begin: int, end: int, preferred: Tensor) -> Tensor:
        """(M, rows) whether a sum of exponentials might overflow with the preferred offset."""
        highest = self.gain
        if self.longest_column is not None:
            highest = highest * _lengths(self.rows[begin:end]) * self.longest_column
        limit = SAFE_EXPONENT - math.log(len(self.columns))
        return (highest - preferred <= limit).logical_not_()  # NaN is risky

    def _launch(
        self, begin: int, end: int, offset: Tensor | None, entries: Tensor | None, needed: Tensor | None
    ) -> Filled:
        """The exponentials, or without `offset` the largest logits of the row tiles with `needed` rows."""
        rows, columns, prefixes = end - begin, len(self.columns), self.term.prefixes
        masks, inside, finding = self.masks, slice(begin, end), offset is None
        layout = (0, 0, 0) if entries is None else (entries.stride(0), entries.stride(1), _width(entries))
        guide_rows = _part(masks.guide_rows, inside)
        strides = (
            self.rows.stride(0),
            self.columns.stride(0),
            0 if guide_rows is None else guide_rows.stride(0),
            0 if masks.guide_columns is None else masks.guide_columns.stride(0),
        )
        aligned = all(step % 16 == 0 for step in (*strides, *layout))
        config = _config(self.columns, self.itemsize, self.kind, aligned)
        tuning = autotuning() and not finding  # where no row is risky, finding takes no time to compare
        slot = TUNED_SLOT if tuning else config.block_n
        slots = triton.cdiv(columns, slot)
        largest = self.gain.new_empty(len(prefixes), slots, rows)
        totals = None if finding else torch.empty_like(largest)
        counts = None
        if masks.counted and not finding:
            counts = torch.empty(slots, rows, dtype=torch.int32, device=largest.device)
        row_norms, column_norms = self.term.rows.inverse_norms, self.term.columns.inverse_norms
        arguments = (
            self.rows[inside], self.columns, self.gain, offset, entries, totals, largest, counts,
            masks.held_out[inside],
            _part(masks.row_ids, inside), masks.column_ids,
            _part(masks.row_groups, inside), masks.column_groups,
            _part(masks.owner, inside), masks.owners,
            _columns(self.term.rows.threshold, inside),
            guide_rows, masks.guide_columns, _part(masks.guide_thresholds, inside),
            _columns(row_norms, inside), _columns(column_norms, slice(None)),
            None if needed is None else needed.to(torch.int8),
            rows, columns, *strides, *layout, slots, masks.held_out.shape[1],
            0 if masks.row_ids is None else masks.row_ids.shape[1],
            0 if masks.column_ids is None else masks.column_ids.shape[1],
        )  # fmt: skip
        constants = {
            "PREFIXES": prefixes,
            "GUIDE_DIMENSION": 0 if guide_rows is None else guide_rows.shape[1],
            "PRECISION": self.precision,
            "GROUP": GROUP,
            "SLOT": slot,
            "USED": "".join("01"[isinstance(value, Tensor)] for value in arguments),
        }
        _run(rows, columns, arguments, constants, None if tuning else config)
        highest = largest.amax(1)
        if offset is None or totals is None:
            return Filled(highest, highest, highest, None)
        return Filled(offset, totals.sum(1), highest, None if counts is None else counts.sum(0))


def _run(
    rows: int, columns: int, arguments: tuple[Any, ...], constants: dict[str, Any], config: StripConfig | None
) -> None:
    """Launch with a configuration, or with the one that tuning finds."""

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(rows, meta["BLOCK_M"]) * triton.cdiv(columns, meta["BLOCK_N"]),)

    if config is None:
        tuned_strip()[grid](*arguments, **constants, enable_fp_fusion=True)
        return
    strip[grid](
        *arguments, **constants, BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
        num_warps=config.num_warps, num_stages=config.num_stages, enable_fp_fusion=True,
    )  # fmt: skip


def _config(columns: Tensor, itemsize: int, kind: Kind, aligned: bool) -> StripConfig:
    if columns.device.type == "cpu":
        return INTERPRETED
    return strip_config(capability(columns.device), columns.shape[1], itemsize, kind, aligned)


def _kind(term: Term, masks: Masks, itemsize: int, precision: str) -> Kind:
    if itemsize == 4 and precision != "tf32":
        return "exact nested" if precision == "ieee" and len(term.prefixes) > 1 else "exact"
    if len(term.prefixes) > 1:
        return "nested"
    if masks.guide_rows is not None:
        return "guided"
    return "masked" if masks.counted else "plain"


def _in_rows(embeddings: Tensor) -> Tensor:
    """The embeddings, each of them consecutive in memory."""
    return embeddings if embeddings.stride(1) == 1 else embeddings.contiguous()


def _lengths(embeddings: Tensor) -> Tensor:
    return torch.linalg.vector_norm(embeddings, dim=1, dtype=torch.float32)


def _part(tensor: Tensor | None, rows: slice) -> Tensor | None:
    return None if tensor is None else tensor[rows]


def _columns(tensor: Tensor | None, columns: slice) -> Tensor | None:
    return None if tensor is None else tensor[:, columns].contiguous()


def _width(entries: Tensor) -> int:
    """Columns that may be written: up to the next multiple of 16, if there is room for them in every row."""
    prefixes, rows, columns = entries.shape
    width = -(-columns // 16) * 16
    last = entries.storage_offset() + (prefixes - 1) * entries.stride(0) + (rows - 1) * entries.stride(1)
    room = entries.untyped_storage().nbytes() // entries.element_size() - last
    return width if min(room, entries.stride(1)) >= width else columns


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
