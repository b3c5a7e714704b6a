"""A source's own columns and labels, brought to the names that the converters know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lit_retrofit.data.fields import BadRow, Row
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.source_options import SourceOptions
from lit_retrofit.errors import UserError


class Adapter:
    """Renames a row's columns, and labels the record that is made of it.

    Args:
        source: with `fields` and labels; one language at most, see `SourceOptions.parts`.
    """

    def __init__(self, source: SourceOptions) -> None:
        self._fields = dict(source.fields)
        self._language = source.language
        self._document_language = source.document_language or source.language
        self._task = source.task

    def columns(self, names: Iterable[str], place: str) -> list[str]:
        """What the columns of a table are called in its rows.

        Raises:
            UserError: a column that `fields` names is not there.
        """
        there = list(names)
        used = [_root(column, there) for column in self._fields.values()]
        for name, root in zip(self._fields, used, strict=True):
            if root not in there:
                raise UserError(f"{place}: {_no_column(name, root, there)}; correct the source's fields")
        return [*(name for name in there if name not in used), *self._fields]

    def row(self, row: Row) -> Row:
        """The row with its fields under the names that the converters know.

        Columns that are not renamed stay. A renamed one is gone under its old name.

        Raises:
            BadRow: a column that `fields` names is not there.
        """
        if not self._fields:
            return row
        found = {name: _look_up(row, column, name) for name, column in self._fields.items()}
        used = {_root(column, row) for column in self._fields.values()}
        return {**{name: value for name, value in row.items() if name not in used}, **found}

    def record(self, record: Record) -> Record:
        """The record with the source's language and task where it names none itself."""
        if not (self._language or self._document_language or self._task):
            return record
        return replace(
            record,
            language=record.language or self._language,
            task=record.task or self._task,
            positives=tuple([self._labelled(document) for document in record.positives]),
            negatives=tuple([self._labelled(document) for document in record.negatives]),
        )

    def _labelled(self, document: Document) -> Document:
        if document.language or not self._document_language:
            return document
        return replace(document, language=self._document_language)


PLAIN = Adapter(SourceOptions(path=""))


def _root(column: str, there: Iterable[str]) -> str:
    """The column that a dotted name begins with; a name with a dot may be a column's own."""
    return column if column in there else column.split(".")[0]


def _look_up(value: Any, column: str, name: str) -> Any:
    """What is at the end of a dotted name; of a list, what is there in each item."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_look_up(item, column, name) for item in value]
    if not isinstance(value, dict):
        raise BadRow(column, f"is sought in a value without fields, for '{name}'", "correct the fields")
    if column in value:
        return value[column]
    root, dot, rest = column.partition(".")
    if root not in value:
        raise BadRow(
            root, f"is missing, which the source's fields name for '{name}'",
            f"the row has {', '.join(value):.200}; correct the source's fields",
        )  # fmt: skip
    return _look_up(value[root], rest, name) if dot else value[root]


def _no_column(name: str, column: str, there: Iterable[str]) -> str:
    named = f"no column '{column}', which the source's fields name for '{name}'"
    return f"{named}; there are {', '.join(there):.200}"
