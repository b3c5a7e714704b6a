"""Readers of training data in the conventions people have, told apart by their fields or by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from lit_retrofit.data import hub
from lit_retrofit.data.adapting import PLAIN, Adapter
from lit_retrofit.data.beir import load_beir
from lit_retrofit.data.collecting import Collected
from lit_retrofit.data.converters import (
    Context,
    from_flagembedding,
    from_pairs,
    from_retrofit,
    from_tevatron,
    from_triplets,
    passage_document,
)
from lit_retrofit.data.corpus import read_by_id
from lit_retrofit.data.fields import BadRow, Row
from lit_retrofit.data.hub_beir import read_hub_beir
from lit_retrofit.data.read_report import ReadReport as ReadReport
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document, Record, row_id
from lit_retrofit.data.rows import read_rows
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError


@dataclass(frozen=True)
class Format:
    """A convention of rows.

    Attributes:
        fields: the sets of fields that tell it, any one of them.
        convert: makes the record of a row, or raises BadRow.
    """

    fields: tuple[frozenset[str], ...]
    convert: Callable[[Row, Context], Record]


def _told_by(*alternatives: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in alternatives)


FORMATS: dict[str, Format] = {
    "pairs": Format(_told_by("query positive"), from_pairs),
    "triplets": Format(_told_by("anchor positive"), from_triplets),
    "flagembedding": Format(_told_by("query pos"), from_flagembedding),
    "tevatron": Format(
        _told_by(
            "query positive_passages", "query_text positive_document_ids", "query positive_document_ids"
        ),
        from_tevatron,
    ),
    "retrofit": Format(_told_by("query positives"), from_retrofit),
}
_FOLDER_FORMAT = "beir"


def read_records(
    source: str | Path,
    *,
    format: str | None = None,
    corpus: Path | None = None,
    split: str | None = None,
    skip_invalid: bool = False,
    adapter: Adapter = PLAIN,
) -> tuple[list[Record], ReadReport]:
    """Reads training records from a file, a folder in BEIR layout or a hub data set.

    A file whose lines cannot be read at all (no JSON, no UTF-8, a wrong number of columns) is always an
    error. So is a document id with two texts: which one is meant cannot be known.

    Args:
        source: a ``.jsonl``, ``.json`` (lines), ``.csv``, ``.tsv`` (also ``.gz``) or ``.parquet`` file; a
            folder with corpus.jsonl, queries.jsonl and qrels/; or ``hf:org/name[:config][@split]``.
        format: one of ``FORMATS``; without it the first row's fields decide.
        corpus: the documents (docid, text and perhaps title) that Tevatron's newer rows name by id.
        split: of a folder: which qrels to take; "train", or else the only one there, by default.
        skip_invalid: leave out and count rows that are no valid record, instead of stopping at the first.
        adapter: names the source's columns, and its language and task.

    Returns:
        The records in the source's order, and what was read and left out.

    Raises:
        UserError: the source is not there, has no known format, or (unless skipped) an invalid row.
    """
    skips = Skips(skip_invalid)
    name, records = stream_records(source, skips, format, corpus, split, adapter)
    collected = Collected(str(source))
    for line, record in records:
        collected.add(record, line)
    return collected.records, _report(str(source), name, collected, skips)


def stream_records(
    source: str | Path,
    skips: Skips,
    format: str | None = None,
    corpus: Path | None = None,
    split: str | None = None,
    adapter: Adapter = PLAIN,
    skip_broken: bool = False,
) -> tuple[str, Iterator[tuple[int, Record]]]:
    """The records of `read_records`, which see, one at a time and as the rows have them.

    Memory does not grow with a file; a BEIR folder and a Tevatron corpus are held. That an id stands for one
    text only is not checked, and negatives that equal a positive are still there. With ``skip_broken``, lines
    of JSON that cannot be read are skipped as invalid rows are.

    Returns:
        The format, and the records with the line or row of each. Invalid rows are left to ``skips``.
    """
    name = str(source)
    check_format_name(format)
    is_hub = name.startswith(hub.PREFIX)
    if not is_hub and Path(source).is_dir():
        _reject(corpus, "corpus", name, "a BEIR folder brings its own corpus.jsonl")
        found: Iterator[tuple[int, Record]] = _folder_records(Path(source), format, split, skips)
        return _FOLDER_FORMAT, ((line, adapter.record(record)) for line, record in found)
    _reject(split, "split", name, "only a BEIR folder has splits; of a hub data set write hf:org/name@split")
    if is_hub and format == _FOLDER_FORMAT:
        found = read_hub_beir(name, skips)
        return _FOLDER_FORMAT, ((line, adapter.record(record)) for line, record in found)
    broken = skips.note if skip_broken and skips.skip_invalid else None
    rows = hub.read_hub(name) if is_hub else read_rows(Path(source), broken)
    return _row_records(rows, name, format, corpus, skips, adapter)


def check_format_name(format: str | None) -> None:
    """Refuses a name that no convention has."""
    names = (*FORMATS, _FOLDER_FORMAT)
    if format is not None and format not in names:
        raise UserError(f"format '{format}' is unknown; use one of {', '.join(names)}")


def _reject(value: object, option: str, source: str, reason: str) -> None:
    if value is not None:
        raise UserError(f"{source}: {option} '{value}' cannot be used here: {reason}")


def _row_records(
    rows: Iterator[tuple[int, Row]],
    source: str,
    name: str | None,
    corpus: Path | None,
    skips: Skips,
    adapter: Adapter,
) -> tuple[str, Iterator[tuple[int, Record]]]:
    if name == _FOLDER_FORMAT:
        raise UserError(f"{source}: format 'beir' is of folders; name one with corpus.jsonl and qrels/")
    first = next(rows)
    place = f"{source}:{first[0]}"
    name = name or detect(adapter.columns(first[1], place), place)
    if name != "tevatron":
        _reject(corpus, "corpus", source, f"rows of format '{name}' hold their documents themselves")
    documents = _read_corpus(corpus) if corpus else None
    return name, _converted(chain([first], rows), source, name, documents, skips, adapter)


def _converted(
    rows: Iterable[tuple[int, Row]],
    source: str,
    name: str,
    documents: Mapping[str, Document] | None,
    skips: Skips,
    adapter: Adapter,
) -> Iterator[tuple[int, Record]]:
    convert = FORMATS[name].convert
    for line, row in rows:
        try:
            record = convert(adapter.row(row), Context(row_id(source, line), documents))
        except BadRow as fault:
            skips.bad_row(source, line, fault)
        else:
            yield line, adapter.record(record)


def _report(source: str, name: str, collected: Collected, skips: Skips) -> ReadReport:
    if not collected.records:
        skips.nothing_left(source)
    return ReadReport(
        path=source,
        format=name,
        records=len(collected.records),
        skipped=tuple(skips.examples),
        skipped_counts=dict(skips.counts),
        dropped_negatives=collected.dropped_negatives,
    )


def detect(row: Iterable[str], place: str) -> str:
    """The convention that a row's fields tell.

    Args:
        row: its fields.
        place: where it is, for the message.

    Raises:
        UserError: no convention has these fields, or several do.
    """
    fields = set(row)
    found = [name for name, known in FORMATS.items() if any(names <= fields for names in known.fields)]
    if len(found) == 1 and not {"query", "anchor"} <= fields:
        return found[0]
    present = " ".join(", ".join(row).split())  # a table's column names may hold line breaks
    if found:
        raise UserError(
            f"{place}: the fields {present:.200} mix several conventions; "
            f"say which one is meant with format, one of {', '.join(FORMATS)}"
        )
    known = "; ".join(
        f"{name}: {' + '.join(sorted(format.fields[0], reverse=True))}" for name, format in FORMATS.items()
    )
    raise UserError(
        f"{place}: no known format has the fields {present:.200}; rename them to one of {known}; or say with "
        "`fields` which is which, without touching the file (docs/sources.md)"
    )


def _read_corpus(path: Path) -> Mapping[str, Document]:
    def document(row: Row) -> Document:
        if "docid" not in row:
            raise BadRow("docid", "is missing", "a corpus file has the fields docid, text and perhaps title")
        return passage_document(row, "", "docid")

    items = read_by_id(path, "docid", document, Skips(skip_invalid=False))
    return {document_id: item for document_id, (item, _) in items.items()}


def _folder_records(
    folder: Path, name: str | None, split: str | None, skips: Skips
) -> Iterator[tuple[int, Record]]:
    if name not in (None, _FOLDER_FORMAT):
        raise UserError(f"{folder}: a folder cannot be read as format '{name}'; name a file in it")
    found = load_beir(folder, split=split, default_split="train", name=None, skips=skips)
    corpus = {document.id: document for document in found.corpus}
    for number, query in enumerate(found.queries, 1):
        grades = found.qrels[query.id]
        positives = tuple(corpus[id] for id, grade in grades.items() if grade > 0)
        yield number, Record(query.id, query.text, positives, language=query.language)


def record_to_row(record: Record) -> dict[str, Any]:
    """The nested row of a record in the product's own format, with everything it holds."""
    row = {field.name: getattr(record, field.name) for field in fields(record)}
    for name in ("positives", "negatives"):
        row[name] = [{"id": d.id, "text": d.text, "language": d.language} for d in row[name]]
    for name in ("positive_scores", "negative_scores"):
        row[name] = list(row[name])
    provenance = row.pop("provenance")
    return row if provenance is None else row | {"provenance": json.loads(provenance)}


def write_records(records: Iterable[Record], path: Path, *, overwrite: bool = False) -> int:
    """Writes records as JSON lines in the product's own format; ``read_records`` gives them back equal.

    Args:
        records: written as they come; they need not fit into memory.
        path: a name ending in ``.jsonl``; the file appears once it is complete.
        overwrite: replace an existing file.

    Returns:
        How many records were written.

    Raises:
        UserError: the file exists, or cannot be written.
    """
    if path.suffix != ".jsonl":
        raise UserError(f"{path}: records are written as JSON lines; choose a name ending in .jsonl")
    count = 0
    with new_text_file(path, overwrite=overwrite) as file:
        for record in records:
            file.write(json.dumps(record_to_row(record), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count
