"""Streams of rows from the file types people have: one dict per row, with its place in the file."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lit_retrofit.errors import UserError

Row = dict[str, Any]
NumberedRows = Iterator[tuple[int, Row]]
# What to do with a line that cannot be read: its number and what is wrong with it.
BadLine = Callable[[int, str], None]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Excel and Windows editors begin UTF-8 files with it


def read_rows(path: Path, bad_line: BadLine | None = None) -> NumberedRows:
    """Streams a file's rows; memory does not grow with the file.

    Args:
        path: a file named ``*.jsonl``, ``*.json`` (one object per line), ``*.csv``, ``*.tsv``, each also
            with ``.gz`` behind it, or ``*.parquet``. Text is UTF-8; CSV and TSV begin with a header.
        bad_line: told of each line of JSON that cannot be read, which is then passed over; without it the
            first one is an error. The other types are always read whole: one bad row leaves their
            further rows in doubt.

    Yields:
        The line (text formats) or row (parquet) number, from 1, and the row. Blank lines are passed over.

    Raises:
        UserError: the file is missing, empty, damaged or of another type.
    """
    _check_is_file(path)
    reader = _reader_of(path)
    empty = True
    rows = _read_json_lines(path, bad_line) if reader is _read_json_lines else reader(path)
    for numbered in rows:
        empty = False
        yield numbered
    if empty:
        raise UserError(f"{path}: the file has no records; give one with at least one row")


def _reader_of(path: Path) -> Callable[[Path], NumberedRows]:
    name = path.name.lower()
    extension = Path(name.removesuffix(".gz")).suffix
    if extension in _READERS and not (extension == ".parquet" and name.endswith(".gz")):
        return _READERS[extension]
    supported = ", ".join(_READERS)
    raise UserError(f"{path}: unknown file type; supported are {supported} (text types also as .gz)")


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: this is a directory; name a file in it")
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")


def read_lines(path: Path, bad_line: BadLine | None = None) -> Iterator[tuple[int, str]]:
    """Streams the lines of a UTF-8 file, plain or gzip, with their numbers from 1.

    Args:
        path: the file.
        bad_line: told of each line that is not UTF-8, which is then passed over; else it is an error.

    Raises:
        UserError: the file is missing, damaged or not UTF-8.
    """
    _check_is_file(path)
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                raw = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    if bad_line is None:
                        raise UserError(
                            f"{path}:{number}: not UTF-8 at byte {error.start + 1} of the line; save the "
                            "file as UTF-8"
                        ) from None
                    bad_line(number, "not UTF-8")
                    continue
                yield number, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file after line {number} ({error}); copy it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None


def plain_or_gzip(path: Path) -> Path:
    """The path itself, or the one with ``.gz`` behind it where only that exists."""
    packed = path.with_name(path.name + ".gz")
    return packed if packed.is_file() and not path.exists() else path


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _read_json_lines(path: Path, bad_line: BadLine | None = None) -> NumberedRows:
    for number, line in read_lines(path, bad_line):
        if not line.strip():
            continue
        try:
            value = _json_object(path, number, line)
        except UserError:
            if bad_line is None:
                raise
            bad_line(number, "not a JSON object")
        else:
            yield number, value


def _json_object(path: Path, number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{number}: not valid JSON ({error.msg} at column {error.colno}); "
            "write one complete object per line"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; endless nesting
        raise UserError(f"{path}:{number}: not usable JSON ({error}); correct the line") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}:{number}: a JSON {_JSON_NAMES[type(value)]} where an object belongs; "
            'write one object {"field": …} per line'
        )
    return value


_JSON_NAMES = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def _read_csv(path: Path) -> NumberedRows:
    return _read_separated(path, ",")


def _read_tsv(path: Path) -> NumberedRows:
    return _read_separated(path, "\t")


def _read_separated(path: Path, separator: str) -> NumberedRows:
    # strict: a stray quote is an error here, and not half the file swallowed into one field
    reader = csv.reader((line for _, line in read_lines(path)), delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1  # a quoted field may span lines: name the one the row begins on
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}:{number}: malformed row ({error}); put quotes around fields with quotes, "
                "separators or line breaks, double the quotes inside, or use JSONL"
            ) from None
        if values is None:
            return
        if not any(values) and len(values) < 2:  # a blank line
            continue
        if not header:
            header = _checked_header(path, number, values)
        elif len(values) != len(header):
            raise UserError(
                f"{path}:{number}: {len(values)} columns where the header has {len(header)}; "
                "quote fields that contain the separator"
            )
        else:
            yield number, dict(zip(header, values, strict=True))


def _checked_header(path: Path, number: int, names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}:{number}: column '{twice[0]}' appears twice; give every column its own name")
    return names


def _read_parquet(path: Path) -> NumberedRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: damaged or no parquet file, after row {number} ({reason}); copy or write it again"
        ) from None


_READERS: dict[str, Callable[[Path], NumberedRows]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
