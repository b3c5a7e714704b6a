"""What records are made from: documents out of a corpus file, a BEIR folder, or training records."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lit_retrofit.data.converters import passage_document
from lit_retrofit.data.fields import BadRow, Row, optional_id, optional_text
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document
from lit_retrofit.data.rows import plain_or_gzip, read_rows
from lit_retrofit.data.text_language import detect, enough_letters
from lit_retrofit.errors import UserError

_DAMAGED = 0.02  # share of control or undecodable characters above which a text is no text


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document to make records from.

    Attributes:
        document: as the records will hold it, the title before the body.
        title: where the source has one.
        body: the text without the title.
        group: of documents that speak of the same content; the document's own id where none is given.
    """

    document: Document
    title: str | None
    body: str
    group: str

    @property
    def language(self) -> str:
        """Given by the source, or identified."""
        assert self.document.language is not None
        return self.document.language


@dataclass(frozen=True)
class DocumentOptions:
    """Which documents are taken.

    Attributes:
        min_characters: shorter texts are skipped and counted.
        max_characters: longer ones too.
        per_language: at most this many of each language, drawn at random; all without it.
        languages: of these only; all without it.
    """

    min_characters: int = 40
    max_characters: int = 100_000
    per_language: int | None = None
    languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_characters <= self.max_characters:
            raise UserError(
                f"documents.min_characters {self.min_characters} and max_characters {self.max_characters} "
                "leave no length; give 1 or more, and a maximum above the minimum"
            )
        if self.per_language is not None and self.per_language < 1:
            raise UserError(f"documents.per_language is {self.per_language}; give 1 or more, or leave it out")


def read_documents(
    path: Path, options: DocumentOptions, *, seed: int, skip_invalid: bool = False
) -> tuple[list[SourceDocument], dict[str, int]]:
    """Reads documents; of training records it takes the positives and never looks at the queries.

    Args:
        path: a file of documents (text; perhaps _id, id or docid, title, language, group or parallel_id), a
            folder with corpus.jsonl, or training records in any convention.
        options: which are taken.
        seed: of the draw.
        skip_invalid: skip and count invalid rows instead of stopping at the first.

    Returns:
        The documents in the source's order, and how many were left out for which reason.

    Raises:
        UserError: a row is invalid (unless skipped), an id has two texts, or no document is left.
    """
    skips = Skips(skip_invalid)
    reasons: Counter[str] = Counter()
    found: dict[str, SourceDocument] = {}
    for line, document in _stream(path, skips):
        earlier = found.get(document.document.id)
        if earlier is None:
            found[document.document.id] = document
        elif earlier.document.text == document.document.text:
            reasons["repeated id, same text"] += 1
        else:
            fault = BadRow("id", f"repeats '{document.document.id}' with another text", "give it its own id")
            skips.bad_row(path, line, fault)
    readable = _unequal(_readable(found.values(), options, reasons), reasons)
    kept = [_with_language(document) for document in readable]
    kept = _of_languages(kept, options.languages, reasons)
    kept = _drawn(kept, options.per_language, seed, reasons)
    reasons.update(skips.counts)
    if not kept:
        raise UserError(f"{path}: no document is left ({_in_words(reasons)}); check the file and the options")
    return kept, dict(reasons)


def _in_words(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common()) or "it has none"


def _stream(path: Path, skips: Skips) -> Iterator[tuple[int, SourceDocument]]:
    file = plain_or_gzip(path / "corpus.jsonl") if path.is_dir() else path
    _, first = next(read_rows(file))
    if "text" in first and not {"query", "anchor", "query_text"} & set(first):
        yield from _from_rows(file, skips)
    else:
        yield from _from_records(file, skips)


def _from_rows(file: Path, skips: Skips) -> Iterator[tuple[int, SourceDocument]]:
    for line, row in read_rows(file):
        try:
            yield line, _from_row(row)
        except BadRow as fault:
            skips.bad_row(file, line, fault)


def _from_row(row: Row) -> SourceDocument:
    document = passage_document(row, "", next((name for name in ("_id", "docid") if name in row), "id"))
    metadata = row.get("metadata")
    nested: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
    language = optional_text(nested, "language") or document.language
    fields = {**nested, **row}
    group = optional_id(fields, "group") or optional_id(fields, "parallel_id") or document.id
    title = optional_text(row, "title")
    return SourceDocument(replace(document, language=language), title, row["text"], group)


def _from_records(file: Path, skips: Skips) -> Iterator[tuple[int, SourceDocument]]:
    records, report = read_records(file, skip_invalid=skips.skip_invalid)
    skips.counts.update(report.skipped_counts)
    for line, record in enumerate(records, 1):
        for document in record.positives:
            yield line, SourceDocument(document, None, document.text, record.group or document.id)


def _readable(
    documents: Iterable[SourceDocument], options: DocumentOptions, reasons: Counter[str]
) -> Iterator[SourceDocument]:
    for document in documents:
        text = document.document.text
        if len(text) < options.min_characters:
            reasons["shorter than min_characters"] += 1
        elif len(text) > options.max_characters:
            reasons["longer than max_characters"] += 1
        elif _is_damaged(text):
            reasons["binary or wrongly decoded"] += 1
        else:
            yield document


def _is_damaged(text: str) -> bool:
    odd = sum(c == "\ufffd" or (c not in "\t\n\r\f\v" and unicodedata.category(c) == "Cc") for c in text)
    return odd > _DAMAGED * len(text)


def _unequal(documents: Iterable[SourceDocument], reasons: Counter[str]) -> Iterator[SourceDocument]:
    seen: set[str] = set()
    for document in documents:
        if document.document.text in seen:
            reasons["same text under another id"] += 1
        else:
            seen.add(document.document.text)
            yield document


def _with_language(document: SourceDocument) -> SourceDocument:
    if document.document.language:
        return document
    language = detect(document.body)[0] if enough_letters(document.body, 1) else "und"
    return replace(document, document=replace(document.document, language=language))


def _of_languages(
    documents: Sequence[SourceDocument], languages: tuple[str, ...] | None, reasons: Counter[str]
) -> list[SourceDocument]:
    if languages is None:
        return list(documents)
    kept = [document for document in documents if document.language in languages]
    if len(kept) < len(documents):
        reasons["of other languages"] += len(documents) - len(kept)
    return kept


def _drawn(
    documents: Sequence[SourceDocument], per_language: int | None, seed: int, reasons: Counter[str]
) -> list[SourceDocument]:
    """At most so many per language. The draw hangs on ids, not on what other documents there are."""
    if per_language is None:
        return list(documents)
    ranked: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for document in documents:
        id = document.document.id
        ranked[document.language].append((random.Random(f"{seed} {id}").random(), id))
    chosen = {id for ranks in ranked.values() for _, id in sorted(ranks)[:per_language]}
    if len(chosen) < len(documents):
        reasons["beyond per_language, not drawn"] += len(documents) - len(chosen)
    return [document for document in documents if document.document.id in chosen]
