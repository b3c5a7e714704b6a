"""Typed access to the fields of one row; what is wrong with a field is told in one place."""

from __future__ import annotations

import re
import sys
from typing import Any

Row = dict[str, Any]

# White space, controls, and characters of no width: joiners, marks of direction, the byte order mark,
# soft hyphens, fillers and variation selectors. A text of nothing else embeds to nothing.
_VISIBLE = re.compile(
    "[^\\s\\x00-\\x1f\\x7f-\\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
_PLACE = re.compile(r"\[\d+\]")
_KINDS = {list: "a list", dict: "an object", bool: "a boolean", int: "a number", float: "a number"}


class BadRow(Exception):
    """A row that is no valid record. The reader that knows the file and line decides: stop or skip.

    Attributes:
        field: the field at fault.
        problem: what is wrong, continuing "field 'x' …".
        remedy: what the user can do.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(field, problem, remedy)
        self.field, self.problem, self.remedy = field, problem, remedy

    @property
    def reason(self) -> str:
        """What is wrong without the place in a list: equal faults of many rows are counted together."""
        return f"field '{_PLACE.sub('', self.field)}' {self.problem}"


def join_title(title: str | None, text: str) -> str:
    """Puts a title before its text, with one space between (the E5 models' convention, 2212.03533)."""
    return f"{title.strip()} {text}".strip() if title and title.strip() else text


def missing(field: str) -> BadRow:
    """The fault of a row without a field that it must have."""
    return BadRow(field, "is missing", "give every row this field, or name the format explicitly")


def required_text(row: Row, field: str) -> str:
    """The text in a field that must be there."""
    if field not in row:
        raise missing(field)
    return checked_text(row[field], field)


def checked_text(value: Any, field: str) -> str:
    """The value itself if it is a text with something to read in it.

    Args:
        value: what the row holds.
        field: its name in the message.

    Raises:
        BadRow: the value is null, not a string, blank, or holds half a surrogate pair.
    """
    if not isinstance(value, str):
        if value is None:
            raise BadRow(field, "is null", "write a text or leave the row out")
        kind = _KINDS.get(type(value), f"a {type(value).__name__}")
        raise BadRow(field, f"is {kind} where a string belongs", "write one text, as a string")
    if not _VISIBLE.search(value):
        raise BadRow(field, "is blank", "write a text or leave the row out")
    if not value.isascii():
        _check_encodable(value, field)
    return value


def optional_text(row: Row, field: str) -> str | None:
    """A label such as a language or a task; null and blank mean "not given"."""
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return checked_text(value, field)


def optional_id(row: Row, field: str) -> str | None:
    """An id as a string, whatever the file writes; null and blank mean "not given"."""
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return checked_id(value, field)


def required_id(row: Row, field: str) -> str:
    """The id in a field that must be there, as a string."""
    if field not in row:
        raise missing(field)
    return checked_id(row[field], field)


def checked_id(value: Any, field: str) -> str:
    """An id as a string: an integer in one file and a string in another is the same id."""
    if isinstance(value, str) and value.strip():
        _check_encodable(value, field)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    kind = "blank" if isinstance(value, str) else _KINDS.get(type(value), "null")
    raise BadRow(field, f"is {kind} where an id belongs", "write ids as strings or integers")


def checked_list(row: Row, field: str) -> list[Any]:
    """The list in a field; a missing field, null or a table's empty cell is an empty list."""
    value = row.get(field)
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        kind = "a string" if isinstance(value, str) else _KINDS.get(type(value), "a value")
        raise BadRow(field, f"is {kind} where a list belongs", "write a list, in JSONL or parquet")
    return value


def required_list(row: Row, field: str) -> list[Any]:
    """The list in a field that must be there, with at least one item."""
    if field not in row:
        raise missing(field)
    if row[field] is None:
        raise BadRow(field, "is null", "write a list, or leave the row out")
    values = checked_list(row, field)
    if not values:
        raise BadRow(field, "is empty", "give every query at least one positive document")
    return values


def text_list(row: Row, field: str) -> list[str]:
    """The texts of a list field."""
    return [checked_text(value, f"{field}[{i}]") for i, value in enumerate(checked_list(row, field))]


def id_list(row: Row, field: str, count: int) -> list[str | None]:
    """One id for each of ``count`` documents; all ``None`` when the field is missing, null or empty."""
    values = checked_list(row, field)
    if not values:
        return [None] * count
    _check_count(values, field, count, "ids")
    return [checked_id(value, f"{field}[{i}]") for i, value in enumerate(values)]


def score_list(row: Row, field: str, count: int) -> tuple[float, ...]:
    """One finite score for each of ``count`` documents, or none when missing, null or empty."""
    values = checked_list(row, field)
    if not values:
        return ()
    _check_count(values, field, count, "scores")
    return tuple(_score(value, f"{field}[{i}]") for i, value in enumerate(values))


def _score(value: Any, field: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and abs(value) <= sys.float_info.max:  # false for NaN too
        return float(value)
    raise BadRow(field, "is no finite number", f"correct {value!r:.40} or drop the list")


def _check_count(values: list[Any], field: str, count: int, what: str) -> None:
    if len(values) != count:
        remedy = f"give {count} {what}, one for each document and in their order, not {len(values)}"
        raise BadRow(field, "has the wrong length", remedy)


def _check_encodable(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        remedy = "write the character whole (JSON: both \\u escapes)"
        raise BadRow(field, "holds half a surrogate pair", remedy) from None
