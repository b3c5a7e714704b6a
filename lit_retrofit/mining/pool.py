"""What is searched and for whom: the corpus, the queries, and the documents that are never negatives."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from lit_retrofit.data.converters import passage_document
from lit_retrofit.data.corpus import read_by_id
from lit_retrofit.data.fields import Row, optional_text
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document, Record, text_id
from lit_retrofit.errors import UserError

Scope = Literal["all", "language", "positive", "other"]
"""Where negatives come from: anywhere, the query's language, the language of its first positive, or any
language but the query's."""


class Prompts(NamedTuple):
    """What a record's texts are embedded with.

    Attributes:
        query: before its query.
        document: before its positives and negatives.
    """

    query: str
    document: str


@dataclass(frozen=True, slots=True)
class PoolQuery:
    """A query text and the documents it must not meet.

    Attributes:
        text: without any prompt.
        language: of its candidates, or with the scope ``other`` not of them; None where the scope is ``all``.
        positives: rows of its labelled positives, over all records with this text, one row per text.
        known: rows that are no negatives whatever they score: these positives, the positives of the
            records' groups, in all the rows whose texts read the same, and a document that is the query.
        prompts: of it and of the documents it is compared with; None for the model's.
    """

    text: str
    language: str | None
    positives: tuple[int, ...]
    known: tuple[int, ...]
    prompts: Prompts | None = None

    @property
    def id(self) -> str:
        """Names the query whatever file it came from and at whatever line."""
        return f"{text_id(self.text)}:{self.language or ''}"


@dataclass(frozen=True, slots=True)
class Pool:
    """The corpus and its queries; neither order depends on the order of the input.

    Attributes:
        documents: one per text (per text and language where the scope asks for it), in the order of
            their ids, so that equal scores are settled by id. "Row" means a position in it.
        queries: one per text (and language, and prompts), in alphabetical order.
        record_queries: for each record the position of its query.
        text_rows: for each text its first row.
        merged: ids left out because another one names the same text.
        scope: which of the documents a query may find.
    """

    documents: tuple[Document, ...]
    queries: tuple[PoolQuery, ...]
    record_queries: tuple[int, ...]
    text_rows: Mapping[str, int]
    merged: int
    scope: Scope

    def by_document_prompt(self) -> Iterator[tuple[list[int], Pool]]:
        """For each prompt of documents the positions of its queries, and a pool of these alone."""
        positions: dict[str | None, list[int]] = defaultdict(list)
        for at, query in enumerate(self.queries):
            positions[query.prompts and query.prompts.document].append(at)
        for found in positions.values():
            yield found, replace(self, queries=tuple(self.queries[at] for at in found), record_queries=())


def read_corpus(path: Path, *, skip_invalid: bool = False) -> tuple[list[Document], int]:
    """Reads a file of documents: _id, id or docid, text, and perhaps title and language.

    Returns:
        The documents, and how many invalid rows were skipped.

    Raises:
        UserError: the file or (unless skipped) a row is invalid, or an id appears twice.
    """
    skips = Skips(skip_invalid)
    items = read_by_id(path, "id", _corpus_document, skips)
    return [document for document, _ in items.values()], skips.counts.total()


def _corpus_document(row: Row) -> Document:
    document = passage_document(row, "", next((name for name in ("_id", "docid") if name in row), "id"))
    metadata = row.get("metadata")  # where BEIR's corpora have the language
    nested = optional_text(metadata, "language") if isinstance(metadata, dict) else None
    return replace(document, language=nested or document.language)


def build_pool(
    records: Sequence[Record],
    corpus: Iterable[Document] = (),
    scope: Scope = "all",
    prompts: Sequence[Prompts] | None = None,
) -> Pool:
    """Gathers the corpus (the records' positives and negatives, and a separate one) and the queries.

    Args:
        records: what negatives are wanted for.
        corpus: further documents.
        scope: see `Scope`.
        prompts: of each record; by default all have the model's.

    Raises:
        UserError: an id has two texts, or the scope needs the language of a query or document that has
            none.
    """
    documents, merged = _documents(records, corpus, scope)
    text_rows: dict[str, list[int]] = defaultdict(list)
    for row, document in enumerate(documents):
        text_rows[document.text].append(row)
    positives, known = _known_rows(records, documents, text_rows)
    given = [None] * len(records) if prompts is None else prompts
    keys = [
        (record.query, _candidate_language(record, scope), own)
        for record, own in zip(records, given, strict=True)
    ]
    ordered = sorted(set(keys), key=lambda key: (key[0], key[1] or "", key[2] or ()))
    order = {key: at for at, key in enumerate(ordered)}
    return Pool(
        documents=documents,
        queries=tuple(
            PoolQuery(text, language, tuple(sorted(positives[text])), tuple(sorted(known[text])), own)
            for text, language, own in order
        ),
        record_queries=tuple(order[key] for key in keys),
        text_rows={text: rows[0] for text, rows in text_rows.items()},
        merged=merged,
        scope=scope,
    )


def _documents(
    records: Sequence[Record], corpus: Iterable[Document], scope: Scope
) -> tuple[tuple[Document, ...], int]:
    """One document per text (and language), in the order of ids, and how many ids were merged."""
    versions: dict[str, dict[str | None, Document]] = defaultdict(dict)
    text_of: dict[str, str] = {}
    mentioned = (document for record in records for document in record.positives + record.negatives)
    for document in chain(corpus, mentioned):
        if text_of.setdefault(document.id, document.text) != document.text:
            raise UserError(
                f"document id '{document.id}' has one text in the corpus and another in the data; "
                "give every text its own id"
            )
        of_text = versions[document.text]
        language = None if scope == "all" else document.language
        of_text[language] = min(of_text.get(language, document), document, key=_preference)
    if scope != "all":
        versions = {text: _with_languages(of_text, scope) for text, of_text in versions.items()}
    documents = sorted(
        (document for of_text in versions.values() for document in of_text.values()), key=_order
    )
    return tuple(documents), len(text_of) - len(versions)


def _with_languages(versions: dict[str | None, Document], scope: Scope) -> dict[str | None, Document]:
    """The versions of one text whose language is known; a mention without one adds nothing to these."""
    known: dict[str | None, Document] = {
        language: document for language, document in versions.items() if language is not None
    }
    if not known:
        raise _no_language(versions[None], scope)
    return known


def _order(document: Document) -> tuple[str, str, str]:
    return document.id, document.text, document.language or ""


def _preference(document: Document) -> tuple[bool, str, bool, str]:
    """An id of the user's before one made from the text; a known language before none."""
    made = document.id == text_id(document.text)
    return made, document.id, document.language is None, document.language or ""


def _known_rows(
    records: Sequence[Record], documents: Sequence[Document], text_rows: Mapping[str, list[int]]
) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """For each query text the rows of its labelled positives, and all rows that are no negatives of it."""
    read: dict[str, list[int]] = defaultdict(list)
    for row, document in enumerate(documents):
        read[as_read(document.text)].append(row)
    positives: dict[str, set[int]] = defaultdict(set)
    known: dict[str, set[int]] = defaultdict(set)
    of_group: dict[str, set[int]] = defaultdict(set)
    for record in records:
        known[record.query].update(read.get(as_read(record.query), ()))
        for document in record.positives:
            rows = read[as_read(document.text)]
            positives[record.query].add(text_rows[document.text][0])
            known[record.query].update(rows)
            if record.group is not None:
                of_group[record.group].update(rows)
    for query, group in {(record.query, record.group) for record in records if record.group is not None}:
        known[query] |= of_group[group]
    return positives, known


class _Visible(dict[int, int | None]):
    """Code point → itself, or None for one without width; filled as characters are met."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)) == "Cf" else code
        return self[code]


_VISIBLE = _Visible()


def as_read(text: str) -> str:
    """What a reader sees of a text.

    Equal for texts that differ in nothing but white space, letter case, Unicode form or characters without
    width (joiners, marks of direction, soft hyphens).
    """
    if not text.isascii():  # in ASCII every character is visible and has one form
        text = unicodedata.normalize("NFKC", text).translate(_VISIBLE)
    return " ".join(text.casefold().split())


def _no_language(document: Document, scope: Scope) -> UserError:
    return UserError(
        f"document '{document.id}' has no language, which pool '{scope}' needs; add one or use pool 'all'"
    )


def _candidate_language(record: Record, scope: Scope) -> str | None:
    if scope == "all":
        return None
    if scope == "positive":
        if record.positives[0].language is None:
            raise _no_language(record.positives[0], scope)
        return record.positives[0].language
    if record.language is None:
        raise UserError(
            f"{record.id}: field 'language' is missing, which pool '{scope}' needs; add it or use pool 'all'"
        )
    return record.language
