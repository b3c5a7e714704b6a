"""The documents to search: a BEIR folder's, or the rows of a file."""

from __future__ import annotations

from pathlib import Path

from lit_retrofit.data.converters import passage_document
from lit_retrofit.data.fields import BadRow, Row, optional_text
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document
from lit_retrofit.data.rows import plain_or_gzip, read_rows
from lit_retrofit.errors import UserError

_IDS = ("_id", "id", "docid")


def read_corpus(source: Path, *, skip_invalid: bool) -> tuple[list[Document], dict[str, int]]:
    """Reads documents in the file's order; equal rows are one document.

    Args:
        source: a folder with corpus.jsonl, or a JSONL, CSV, TSV or parquet file with a column ``text``,
            perhaps ``title``, ``_id`` (or ``id``, ``docid``), ``language`` or ``metadata.language``.
        skip_invalid: leave out and count rows without a text instead of stopping at the first.

    Returns:
        The documents, and how many rows were skipped for which reason.

    Raises:
        UserError: there is no such file, it has no documents, or (unless skipped) a row is invalid.
    """
    path = plain_or_gzip(source / "corpus.jsonl") if source.is_dir() else source
    if not path.exists():
        raise UserError(f"{path}: no such file; give a BEIR folder, or a file of rows with a field 'text'")
    skips = Skips(skip_invalid)
    found: dict[str, Document] = {}
    for line, row in read_rows(path):
        try:
            document = _document(row)
        except BadRow as fault:
            skips.bad_row(path, line, fault, file=path.name)
            continue
        if found.setdefault(document.id, document).text != document.text:
            raise UserError(
                f"{path}:{line}: id '{document.id}' has another text above; give every text its own id"
            )
    if not found:
        raise UserError(f"{path}: no row has a text; a corpus needs a field 'text'")
    return list(found.values()), dict(skips.counts)


def _document(row: Row) -> Document:
    if "text" not in row and ("positive" in row or "positives" in row or "pos" in row):
        raise BadRow(
            "text", "is missing: these are training records", "give a corpus, rows with a field 'text'"
        )
    id_field = next((name for name in _IDS if row.get(name) not in (None, "")), "_id")
    document = passage_document(row, "", id_field)
    metadata = row.get("metadata")
    nested = optional_text(metadata, "language") if isinstance(metadata, dict) else None
    return Document(document.id, document.text, nested or document.language)
