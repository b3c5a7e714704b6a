"""Files of items with unique ids: a corpus, a list of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from lit_retrofit.data.fields import BadRow, Row
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document, Query
from lit_retrofit.data.rows import read_rows
from lit_retrofit.errors import UserError

Item = TypeVar("Item", Document, Query)


def read_by_id(
    path: Path,
    id_field: str,
    convert: Callable[[Row], Item],
    skips: Skips,
    left_out: set[str] | None = None,
) -> dict[str, tuple[Item, int]]:
    """Reads items in the file's order.

    Args:
        path: a file of a type that ``read_rows`` knows.
        id_field: the field the id is in, for messages.
        convert: makes the item of a row, or raises BadRow.
        skips: what to do with a bad row.
        left_out: takes the ids of the rows that are skipped.

    Returns:
        The items by id, each with its line.

    Raises:
        UserError: the file or (unless skipped) a row is invalid, or an id appears twice.
    """
    return collect_by_id(read_rows(path), path, path.name, id_field, convert, skips, left_out)


def collect_by_id(
    rows: Iterable[tuple[int, Row]],
    source: str | Path,
    short: str,
    id_field: str,
    convert: Callable[[Row], Item],
    skips: Skips,
    left_out: set[str] | None = None,
) -> dict[str, tuple[Item, int]]:
    """Does the work of ``read_by_id``, which see, on the numbered rows of any source.

    Args:
        rows: line or row numbers, and rows.
        source: where they are from, for messages.
        short: the same inside a reason for which rows are counted.
        id_field: the field the id is in, for messages.
        convert: makes the item of a row, or raises BadRow.
        skips: what to do with a bad row.
        left_out: takes the ids of the rows that are skipped.
    """
    items: dict[str, tuple[Item, int]] = {}
    for line, row in rows:
        try:
            item = convert(row)
        except BadRow as fault:
            skips.bad_row(source, line, fault, file=short)
            if left_out is not None:
                left_out.add(str(row.get(id_field)))
            continue
        if item.id in items:
            first = items[item.id][1]
            raise UserError(
                f"{source}:{line}: field '{id_field}' repeats '{item.id}' of line {first}; "
                "give every row its own id"
            )
        items[item.id] = (item, line)
    return items
