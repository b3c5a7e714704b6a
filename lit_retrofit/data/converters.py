"""From a row of one of the known conventions to a record: one plain function per convention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from lit_retrofit.data.fields import (
    BadRow,
    Row,
    checked_id,
    checked_list,
    checked_text,
    id_list,
    join_title,
    missing,
    optional_id,
    optional_text,
    required_list,
    required_text,
    score_list,
    text_list,
)
from lit_retrofit.data.records import Document, Record, text_id


class Context(NamedTuple):
    """What a converter knows beside its row.

    Attributes:
        record_id: names a record whose row has no id.
        corpus: documents by id, for formats whose rows name documents only.
    """

    record_id: str
    corpus: Mapping[str, Document] | None = None


def from_pairs(row: Row, context: Context) -> Record:
    """query, positive (perhaps positive_title), any of negative, negatives, negative_1 … negative_n."""
    return _pair(row, context, "query")


def from_triplets(row: Row, context: Context) -> Record:
    """sentence-transformers' anchor, positive and the same fields for negatives."""
    return _pair(row, context, "anchor")


def from_flagembedding(row: Row, context: Context) -> Record:
    """FlagEmbedding's query, pos, neg (lists), pos_scores, neg_scores, pos_id, neg_id and type."""
    query = required_text(row, "query")
    required_list(row, "pos")
    positives = _documents(row, "pos", "pos_id", optional_text(row, "language"))
    negatives = _documents(row, "neg", "neg_id", None)
    scores = ("pos_scores", "neg_scores")
    return _record(row, context, query, positives, negatives, scores, task_field="type")


def from_tevatron(row: Row, context: Context) -> Record:
    """Tevatron's passages in the row (older files) or ids of documents in a corpus file (newer ones)."""
    query = required_text(row, "query_text" if "query_text" in row else "query")
    if "positive_passages" in row:
        required_list(row, "positive_passages")
        positives = _passages(row, "positive_passages")
        negatives = _passages(row, "negative_passages")
    else:
        required_list(row, "positive_document_ids")
        positives = _looked_up(row, "positive_document_ids", context)
        negatives = _looked_up(row, "negative_document_ids", context)
    return _record(row, context, query, positives, negatives)


def from_retrofit(row: Row, context: Context) -> Record:
    """The product's own nested rows, which keep everything that a record holds."""
    query = required_text(row, "query")
    required_list(row, "positives")
    record = _record(row, context, query, _nested(row, "positives"), _nested(row, "negatives"))
    if row.get("provenance") is None:
        return record
    return replace(record, provenance=_provenance(row["provenance"]))


def _provenance(value: Any) -> str:
    found = _parsed(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise BadRow("provenance", "is no object", "write an object, or leave the field out")
    return json.dumps(found, ensure_ascii=False, sort_keys=True)


def _parsed(text: str) -> Any:
    """What a text is as JSON, which is how parquet holds an object; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pair(row: Row, context: Context, query_field: str) -> Record:
    query = required_text(row, query_field)
    if isinstance(row.get("positive"), list):
        raise BadRow(
            "positive",
            "is a list where a string belongs",
            "write one row per positive, or name the lists pos and neg (format flagembedding)",
        )
    text = join_title(optional_text(row, "positive_title"), required_text(row, "positive"))
    document_id = optional_id(row, "document_id") or text_id(text)
    positive = Document(document_id, text, optional_text(row, "language"))
    texts = _negative_texts(row)
    ids = id_list(row, "negative_ids", len(texts))
    return _record(row, context, query, (positive,), _with_ids(texts, ids, None))


def _negative_texts(row: Row) -> list[str]:
    texts: list[str] = []
    for name in _negative_columns(tuple(row)):
        value = row[name]
        if isinstance(value, list):
            texts += text_list(row, name)
        elif value is not None and value != "":  # an empty cell of a ragged table: no negative here
            texts.append(checked_text(value, name))
    return texts + text_list(row, "negatives") if "negatives" in row else texts


@lru_cache(maxsize=64)
def _negative_columns(fields: tuple[str, ...]) -> list[str]:
    """Those of one negative each, in their order; the rows of a table all have the same."""
    numbered = (name for name in fields if name.startswith("negative_") and name[9:].isdecimal())
    single = ["negative"] if "negative" in fields else []
    return [*single, *sorted(numbered, key=lambda name: int(name[9:]))]


def _documents(row: Row, field: str, id_field: str, language: str | None) -> tuple[Document, ...]:
    texts = text_list(row, field)
    return _with_ids(texts, id_list(row, id_field, len(texts)), language)


def _with_ids(texts: list[str], ids: list[str | None], language: str | None) -> tuple[Document, ...]:
    pairs = zip(texts, ids, strict=True)
    return tuple([Document(id or text_id(text), text, language) for text, id in pairs])


def _passages(row: Row, field: str) -> tuple[Document, ...]:
    return tuple(passage_document(passage, f"{field}[{i}]", "docid") for i, passage in _objects(row, field))


def passage_document(passage: Row, place: str, id_field: str) -> Document:
    """A document from an object with a text and, perhaps, a title and an id.

    Args:
        passage: the object.
        place: names the object in messages, or "" for a whole row.
        id_field: the field with the id; without one the id is made from the text.
    """
    prefix = f"{place}." if place else ""
    title, body = passage.get("title"), passage.get("text")
    if title is not None and not isinstance(title, str):
        raise BadRow(f"{prefix}title", "is no string", "write a string, or leave the title out")
    if "text" not in passage:
        raise missing(f"{prefix}text")
    text = checked_text(join_title(title, body) if isinstance(body, str) else body, f"{prefix}text")
    given = passage.get(id_field)
    id = text_id(text) if given is None or given == "" else checked_id(given, f"{prefix}{id_field}")
    return Document(id, text, optional_text(passage, "language"))


def _looked_up(row: Row, field: str, context: Context) -> tuple[Document, ...]:
    if context.corpus is None:
        remedy = "give its path as corpus (rows of docid and text)"
        raise BadRow(field, "names documents of a corpus file that was not given", remedy)
    documents = []
    for i, value in enumerate(checked_list(row, field)):
        document_id = checked_id(value, f"{field}[{i}]")
        if document_id not in context.corpus:
            remedy = f"add document '{document_id}' to the corpus or correct the id"
            raise BadRow(f"{field}[{i}]", "names a document that the corpus lacks", remedy)
        documents.append(context.corpus[document_id])
    return tuple(documents)


def _nested(row: Row, field: str) -> tuple[Document, ...]:
    return tuple(passage_document(value, f"{field}[{i}]", "id") for i, value in _objects(row, field))


def _objects(row: Row, field: str) -> list[tuple[int, dict[str, Any]]]:
    values = checked_list(row, field)
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise BadRow(f"{field}[{i}]", "is no object", 'write {"id": …, "text": …} for each document')
    return list(enumerate(values))


def _record(
    row: Row,
    context: Context,
    query: str,
    positives: tuple[Document, ...],
    negatives: tuple[Document, ...],
    score_fields: tuple[str, str] = ("positive_scores", "negative_scores"),
    task_field: str = "task",
) -> Record:
    """A record with the optional fields that all conventions share."""
    return Record(
        id=optional_id(row, "query_id") or optional_id(row, "id") or context.record_id,
        query=query,
        positives=positives,
        negatives=negatives,
        language=optional_text(row, "language"),
        task=optional_text(row, task_field) or (optional_text(row, "task") if task_field != "task" else None),
        source=optional_text(row, "source"),
        # a group may join several parallel ids that must not be split apart, so it goes first
        group=optional_id(row, "group") or optional_id(row, "parallel_id"),
        positive_scores=score_list(row, score_fields[0], len(positives)),
        negative_scores=score_list(row, score_fields[1], len(negatives)),
    )
