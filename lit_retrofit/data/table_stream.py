"""A stream over parquet or Arrow files that stay on disk, however large they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.data.adapting import Adapter
from lit_retrofit.data.capping import cap_rows
from lit_retrofit.data.collecting import drop_false_negatives
from lit_retrofit.data.content_hash import hash_files
from lit_retrofit.data.converters import Context
from lit_retrofit.data.fields import BadRow
from lit_retrofit.data.formats import FORMATS, check_format_name, detect
from lit_retrofit.data.hub import PREFIX, hub_files
from lit_retrofit.data.options import SourceOptions
from lit_retrofit.data.records import Record
from lit_retrofit.data.streams import Key, Sourced
from lit_retrofit.data.tables import Block, find_files, read_block, read_layout
from lit_retrofit.errors import UserError, bad_field

if TYPE_CHECKING:
    import pyarrow as pa


class TableStream:
    """Records of parquet or Arrow files, read anew in each pass.

    A pass permutes the blocks (row groups), puts their rows one after another, and permutes each window of
    `shuffle_buffer` of them: two numbers and a seed tell which row comes when. One window is in memory. Rows
    are converted, and so checked, when they are drawn.

    Nothing is joined across records: a query's further positives in other rows are known only where they
    meet in a batch.

    Args:
        source: with the path or pattern of the files.
        format: their convention, where it cannot be told from the columns.
        skip_invalid: let another row of the window take the place of a broken one, instead of stopping.
        seed: of what `max_per_language` keeps.

    Raises:
        UserError: no such file, a damaged one, no rows, or columns of no known convention.
    """

    def __init__(
        self, source: SourceOptions, format: str | None = None, skip_invalid: bool = False, seed: int = 0
    ) -> None:
        self.source = source
        self.skip_invalid = skip_invalid
        self._adapter = Adapter(source)
        self.format, self._blocks = _layout(source, self._adapter, source.format or format)
        if not self._blocks:
            raise UserError(f"{source.path}: the file has no records; give one with at least one row")
        sizes = np.array([block.rows for block in self._blocks])
        self._firsts = np.cumsum(sizes) - sizes
        self._kept: NDArray[np.bool_] | None = None
        self.capped: dict[str, int] = {}
        if source.max_per_language:
            column = source.fields.get("language", "language")
            self._kept, self.capped = cap_rows(self._blocks, source.max_per_language, seed, column)
            sizes = np.add.reduceat(self._kept, self._firsts, dtype=np.int64)
        self._sizes = sizes
        self._size = int(sizes.sum())
        self._window: tuple[tuple[Key, int] | None, Any, list[str]] = (None, None, [])
        self._reader: _Reader | None = None
        self._skips: list[tuple[str, str]] = []

    @property
    def label(self) -> str:
        """The source's name."""
        return self.source.label

    def __len__(self) -> int:
        return self._size

    def take(self, key: Key, start: int, count: int) -> list[Sourced]:
        """See `Stream`.

        Raises:
            UserError: a row is broken and may not be skipped, or too many of a window are.
        """
        found: list[Sourced] = []
        size = self.source.shuffle_buffer
        while count:
            offset = start % size
            part = min(count, size - offset)
            found += self._from_window(key, start // size, offset, part)
            start, count = start + part, count - part
        return found

    def content(self) -> str:
        """A hash of the files, and of which rows of them are kept."""
        kept = b"" if self._kept is None else self._kept.tobytes()
        return hash_files(dict.fromkeys(block.path for block in self._blocks), kept)

    def take_skips(self) -> list[tuple[str, str]]:
        """See `Stream`."""
        skips, self._skips = self._skips, []
        return skips

    def _from_window(self, key: Key, number: int, offset: int, count: int) -> list[Sourced]:
        if self._window[0] != (key, number):
            self._window = ((key, number), *self._load(key, number))
        _, table, places = self._window
        rows = table.slice(offset, count).to_pylist()
        found = list(map(self._convert, rows, places[offset : offset + count]))
        missing = [i for i, record in enumerate(found) if record is None]
        # Rows that come later in this window stand in: those of this batch are its own already.
        others = (i % len(places) for i in range(offset + count, len(places) + offset))
        while missing:
            stand_in = next(others, None)
            if stand_in is None:
                raise UserError(
                    f"{self.source.path}: too many broken rows to fill a batch from {len(places)} rows; "
                    f"correct them (for instance {places[offset]}), or raise shuffle_buffer"
                )
            record = self._convert(table.slice(stand_in, 1).to_pylist()[0], places[stand_in])
            if record is not None:
                found[missing.pop(0)] = record
        return [(record, self.source) for record in found if record is not None]

    def _convert(self, row: dict[str, Any], place: str) -> Record | None:
        try:
            record = FORMATS[self.format].convert(self._adapter.row(row), Context(place))
            return drop_false_negatives(self._adapter.record(record))[0]
        except BadRow as fault:
            if not self.skip_invalid:
                path, _, number = place.rpartition(":")
                raise bad_field(path, int(number), fault.field, fault.problem, fault.remedy) from None
            self._skips.append((place, fault.reason))
            return None

    def _load(self, key: Key, number: int) -> tuple[pa.Table, list[str]]:
        """A window's rows in random order, and the file and row number of each."""
        import pyarrow as pa

        begin = number * self.source.shuffle_buffer
        end = min(begin + self.source.shuffle_buffer, len(self))
        if self._reader is None or not self._reader.is_at(key, begin):
            self._reader = _Reader(self, key, begin)
        batches, places = self._reader.read(end - begin)
        order = np.random.default_rng((*key, number)).permutation(end - begin)
        return pa.Table.from_batches(batches).combine_chunks().take(order), [places[i] for i in order]

    def rows_from(self, key: Key, position: int) -> Iterator[tuple[pa.RecordBatch, Block, NDArray]]:
        """The pass from a position on: rows, their block, and their numbers in the file from 0."""
        order = np.random.default_rng(key).permutation(len(self._blocks))
        for number in order.tolist():
            block = self._blocks[number]
            if position >= self._sizes[number]:
                position -= int(self._sizes[number])
                continue
            for batch, rows in self._kept_rows(number):
                passed = min(position, len(rows))
                position -= passed
                if passed < len(rows):
                    yield batch.slice(passed), block, rows[passed:]

    def _kept_rows(self, number: int) -> Iterator[tuple[pa.RecordBatch, NDArray]]:
        import pyarrow as pa

        block, first = self._blocks[number], self._firsts[number]
        done = 0
        for batch in read_block(block):
            rows = np.arange(done, done + batch.num_rows)
            done += batch.num_rows
            if self._kept is not None:
                mask = self._kept[first + rows]
                batch, rows = batch.filter(pa.array(mask)), rows[mask]
            yield batch, block.first + rows


class _Reader:
    """Reads a pass window by window; only a jump opens the files anew."""

    def __init__(self, stream: TableStream, key: Key, position: int) -> None:
        self._key = key
        self._position = position
        self._process = os.getpid()  # a fork shares the files' offsets with its parent
        self._rows = stream.rows_from(key, position)
        self._left: tuple[pa.RecordBatch, Block, NDArray] | None = None

    def is_at(self, key: Key, position: int) -> bool:
        """Whether this reader goes on there."""
        return (self._key, self._position, self._process) == (key, position, os.getpid())

    def read(self, count: int) -> tuple[list[pa.RecordBatch], list[str]]:
        """The next rows, and the place of each."""
        self._position += count
        batches: list[pa.RecordBatch] = []
        places: list[str] = []
        while count:
            batch, block, rows = self._left or next(self._rows)
            taken = min(count, len(rows))
            batches.append(batch.slice(0, taken))
            path = f"{block.path}:"
            places += [path + str(row + 1) for row in rows[:taken].tolist()]
            self._left = (batch.slice(taken), block, rows[taken:]) if taken < len(rows) else None
            count -= taken
        return batches, places


def _layout(source: SourceOptions, adapter: Adapter, format: str | None) -> tuple[str, list[Block]]:
    """The files' convention and their blocks that have rows."""
    check_format_name(format)
    blocks: list[Block] = []
    schema: pa.Schema | None = None
    files = hub_files(source.path) if source.path.startswith(PREFIX) else find_files(source.path)
    for path in files:
        found, its_blocks = read_layout(path)
        if schema is not None and not found.equals(schema):
            raise UserError(
                f"{path}: its columns, or their types, differ from those of the files before it; name it as "
                "a source of its own"
            )
        schema = found
        blocks += its_blocks
    columns = [] if schema is None else schema.names
    named = adapter.columns(columns, source.path)
    name = format or detect(named, source.path)
    if name not in FORMATS:
        raise UserError(f"{source.path}: format '{name}' cannot be streamed; use one of {', '.join(FORMATS)}")
    if source.max_per_language and source.fields.get("language", "language") not in columns:
        raise UserError(
            f"{source.path}: max_per_language needs a column 'language'; add it, or leave the cap out"
        )
    return name, [block for block in blocks if block.rows]
