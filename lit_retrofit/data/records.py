"""The one record type: a query with its positive and negative documents."""

from __future__ import annotations

import hashlib
import os.path
import re
from dataclasses import dataclass, field

# A row of a file or hub data set; a text's hash, alone or behind the id of the document it is a part of.
_MADE_UP = re.compile(
    r"(^hf:.*|\.(jsonl|json|csv|tsv)(\.gz)?|\.(parquet|arrow|feather|ipc)):[0-9]+\Z|(^|#)text:[0-9a-f]{24}\Z",
    re.IGNORECASE | re.DOTALL,
)


def text_id(text: str) -> str:
    """An id for a text that came without one: equal texts get equal ids, on every machine."""
    return "text:" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def row_id(source: str, row: int) -> str:
    """An id for a record that came without one: its file's name, or its hub data set, and its line or row."""
    return f"{source if source.startswith('hf:') else os.path.basename(source)}:{row}"


def is_made_up(id: str) -> bool:
    """Whether an id is of `text_id` or `row_id`, perhaps of an earlier run: it says nothing of other data."""
    return _MADE_UP.search(id) is not None


@dataclass(frozen=True, slots=True)
class Document:
    """A passage. ``text`` holds the title, where there is one, before the body."""

    id: str
    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One training example.

    Attributes:
        id: names the record in reports (of `row_id` where the source has no id).
        query: the query's text, without any prompt.
        positives: documents that answer the query, at least one. The first is the one the source
            gives; further ones may be alternatives (another language's version of the same page).
        negatives: hard negatives; may be empty.
        language: of the query, where known.
        task: the kind of query (title, keyword, question, …), where known.
        source: the data set it comes from.
        group: records of one group speak of the same content (for instance translations of one
            page) and never end up on both sides of a split.
        positive_scores: the miner's or teacher's similarity of each positive, or empty.
        negative_scores: the same of each negative, or empty.
        provenance: how a synthetic record was made, a JSON object as text; None for others.
    """

    id: str
    query: str
    positives: tuple[Document, ...]
    negatives: tuple[Document, ...] = ()
    language: str | None = None
    task: str | None = None
    source: str | None = None
    group: str | None = None
    positive_scores: tuple[float, ...] = ()
    negative_scores: tuple[float, ...] = ()
    provenance: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query of an evaluation set, without any prompt."""

    id: str
    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Queries, a corpus and relevance judgements: what mining searches and evaluation measures.

    Attributes:
        name: shown in tables.
        queries: every query has at least one judgement above zero.
        corpus: ids are unique.
        qrels: query id → document id → graded relevance (an integer; 0 is "judged, not relevant").
        left_out: ids of documents that were skipped as invalid (blank, for instance) where the set was read.
    """

    name: str
    queries: tuple[Query, ...]
    corpus: tuple[Document, ...]
    qrels: dict[str, dict[str, int]]
    left_out: frozenset[str] = field(default=frozenset(), compare=False)
