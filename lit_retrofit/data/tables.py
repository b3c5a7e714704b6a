"""Arrow tables on disk, block by block: parquet row groups and the record batches of Arrow IPC files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lit_retrofit.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 8192
_ARROW = (".arrow", ".feather", ".ipc")


@dataclass(frozen=True)
class Block:
    """A part of a file that can be read without the rest.

    Attributes:
        path: the file.
        index: of the row group or record batch in it.
        first: number of its first row in the file, from 0.
        rows: how many it has.
    """

    path: Path
    index: int
    first: int
    rows: int


def find_files(pattern: str) -> list[Path]:
    """The file of that name, or the files that a pattern names, in the order of their names.

    Raises:
        UserError: there is none, or one is neither parquet nor Arrow.
    """
    paths = [Path(pattern)] if Path(pattern).exists() else [Path(name) for name in sorted(glob.glob(pattern))]
    if not paths:
        raise UserError(f"{pattern}: no such file; check data.options.train")
    for path in paths:
        if path.suffix not in (".parquet", *_ARROW):
            raise UserError(
                f"{path}: only parquet and Arrow files can be streamed; write it as .parquet, or leave "
                "stream out"
            )
    return paths


def read_layout(path: Path) -> tuple[pa.Schema, list[Block]]:
    """A file's schema and its blocks, from its metadata alone.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    with _faults(path):
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow.remove_metadata()
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        else:
            table = _open_arrow(path)
            schema = table.schema.remove_metadata()
            sizes = [batch.num_rows for batch in table.to_batches()]
    firsts = [0]
    for size in sizes:
        firsts.append(firsts[-1] + size)
    return schema, [Block(path, i, firsts[i], size) for i, size in enumerate(sizes)]


def read_block(block: Block, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A block's rows, a few thousand at a time: memory does not grow with the block.

    The file is opened for each block: an open one must not be shared between processes.

    Raises:
        UserError: the block is damaged.
    """
    with _faults(block.path):
        if block.path.suffix == ".parquet":
            import pyarrow.parquet as pq

            # Without a buffer size a whole column of the row group would be held, compressed.
            with pq.ParquetFile(block.path, buffer_size=1 << 20, pre_buffer=False) as file:
                yield from file.iter_batches(
                    _CHUNK, row_groups=[block.index], columns=columns, use_threads=False
                )
        else:
            table = _open_arrow(block.path).slice(block.first, block.rows)
            table = table.select(columns) if columns else table
            yield from table.to_batches(max_chunksize=_CHUNK)


def _open_arrow(path: Path) -> pa.Table:
    """Memory-mapped: the file format of Arrow, or its stream format, which the hub's cache is in."""
    import pyarrow as pa

    mapped = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(mapped).read_all()
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped).read_all()


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: damaged, or not what its name says ({reason:.300}); write it again"
        ) from None
