"""Records written one by one, as JSON lines or parquet, to a file that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_retrofit.data.formats import record_to_row
from lit_retrofit.data.records import Record
from lit_retrofit.data.writing import new_file, new_text_file
from lit_retrofit.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".jsonl", ".parquet")
_ROW_GROUP = 8192  # small ones, so that a stream can shuffle them
Write = Callable[[Record], None]


def check_record_file(path: Path) -> None:
    """Refuses a name that tells no type of file.

    Raises:
        UserError: the name ends neither in .jsonl nor in .parquet.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: records are written as {' or '.join(SUFFIXES)}; choose a name with one of these"
        )


@contextmanager
def record_writer(path: Path, *, overwrite: bool) -> Iterator[Write]:
    """Opens a file of records in the product's own format, which ``read_records`` reads back equal.

    Args:
        path: ends in ``.jsonl`` or ``.parquet``.
        overwrite: replace an existing file.

    Yields:
        A function that writes a record.

    Raises:
        UserError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    check_record_file(path)
    if path.suffix == ".jsonl":
        with new_text_file(path, overwrite=overwrite) as file:
            yield lambda record: print(to_json_line(record_to_row(record)), file=file)
        return
    import pyarrow.parquet as pq

    with new_file(path, overwrite=overwrite) as partial, pq.ParquetWriter(partial, _schema()) as writer:
        rows: list[dict[str, Any]] = []

        def write(record: Record) -> None:
            # JSON text: each record could have other fields in it, a column has the same for all.
            rows.append(record_to_row(record) | {"provenance": record.provenance})
            if len(rows) == _ROW_GROUP:
                _flush(rows, writer)

        yield write
        _flush(rows, writer)


def to_json_line(row: dict[str, Any]) -> str:
    """A row as one line, letters as they are."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _flush(rows: list[dict[str, Any]], writer: Any) -> None:
    import pyarrow as pa

    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
        rows.clear()


def _schema() -> pa.Schema:
    import pyarrow as pa

    document = pa.struct([(name, pa.string()) for name in ("id", "text", "language")])
    types = {
        "positives": pa.list_(document),
        "negatives": pa.list_(document),
        "positive_scores": pa.list_(pa.float64()),
        "negative_scores": pa.list_(pa.float64()),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in Record.__dataclass_fields__])
