"""What an inspection found, in plain values: the terminal, the page and the JSON file show the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lit_retrofit.data.records import Document, Record
from lit_retrofit.inspection.config import Limits
from lit_retrofit.inspection.lengths import Lengths, Measured, describe
from lit_retrofit.inspection.reading import UNKNOWN, Group
from lit_retrofit.inspection.similarity import ScoredRecord, Scores, Suspect
from lit_retrofit.inspection.texts import oddities, script_of, shown

_SHOWN_DOCUMENTS = 3


@dataclass(frozen=True)
class ShownDocument:
    """A document to read: shortened text, its length, and its similarity to the query where known."""

    text: str
    language: str | None
    length: int
    score: float | None


@dataclass(frozen=True)
class ShownRecord:
    """A record to read.

    Attributes:
        id: the record's.
        query: shortened, like the documents.
        language: of the query.
        task: the kind of query.
        length: of the query.
        positives: at most three.
        negatives: likewise.
        more: how many documents are not shown.
    """

    id: str
    query: str
    language: str | None
    task: str | None
    length: int
    positives: tuple[ShownDocument, ...]
    negatives: tuple[ShownDocument, ...]
    more: int


@dataclass(frozen=True)
class LanguageRow:
    """A language of the queries.

    Attributes:
        language: as the records name it, or "unknown".
        records: of all that were read.
        sampled: of those that were looked into; the rest of the row is about these.
        scripts: of their queries.
        query_length: the median.
        document_length: likewise, of positives and negatives.
        over: share of the documents that are cut; None without a model.
    """

    language: str
    records: int
    sampled: int
    scripts: dict[str, int]
    query_length: float | None
    document_length: float | None
    over: float | None


@dataclass(frozen=True)
class GroupSummary:
    """One source, or one value of its records' field `source`.

    Attributes:
        name: of the group.
        records: that were read.
        sampled: of these, how many were looked into.
        languages: of the queries, the most frequent first.
        tasks: records per kind of query.
        positives: of all records together.
        negatives: likewise.
        without_negatives: records that have none.
        crossing: records whose first positive has another language than the query.
        distinct_documents: positives and negatives of different texts.
        repeated_queries: records whose query an earlier one of the group has.
        repeated_pairs: records whose query and first positive an earlier one has.
        shared_queries: queries that an earlier group has too.
        copied: records whose query, of five words or more, stands word by word in a positive.
        identical: hard negatives that are a positive of their record.
        lengths: by role: query, positive, negative.
        oddities: texts of the sample with something unusual in them, by what.
        scores: similarities; None without a model, where the records have none of their own.
        suspects: likely false negatives of the sample, by reason.
        shown_suspects: some of them.
        examples: records to read.
    """

    name: str
    records: int
    sampled: int
    languages: tuple[LanguageRow, ...]
    tasks: dict[str, int]
    positives: int
    negatives: int
    without_negatives: int
    crossing: int
    distinct_documents: int
    repeated_queries: int
    repeated_pairs: int
    shared_queries: int
    copied: int
    identical: int
    lengths: dict[str, Lengths]
    oddities: dict[str, int]
    scores: Scores | None
    suspects: dict[str, int]
    shown_suspects: tuple[Suspect, ...]
    examples: tuple[ShownRecord, ...]


@dataclass(frozen=True)
class Inspection:
    """All that was found.

    Attributes:
        data: as the user named it.
        started: seconds since the epoch.
        seconds: wall time.
        model: whose tokens and similarities these are; None where none was given.
        unit: of the lengths.
        near: the share of the positive's score from which a negative is a suspect.
        limits: tokens of a query and of a document beyond which training cuts it, and what says so; None
            without a model.
        formats: convention per source.
        complete: whether every source was read to its end.
        skipped: rows that are no valid record, per reason.
        skipped_examples: the first of these.
        groups: in the order of the sources, larger groups of a source first.
    """

    data: str
    started: float
    seconds: float
    model: str | None
    unit: str
    near: float
    limits: Limits | None
    formats: dict[str, str]
    complete: bool
    skipped: dict[str, int]
    skipped_examples: tuple[str, ...]
    groups: tuple[GroupSummary, ...]

    @property
    def records(self) -> int:
        """Of all groups."""
        return sum(group.records for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """In plain types."""
        return asdict(self)


def language_rows(group: Group, measured: Measured, limit: int | None) -> tuple[LanguageRow, ...]:
    """The languages of a group, the most frequent first."""
    scripts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    queries: defaultdict[str, list[int]] = defaultdict(list)
    documents: defaultdict[str, list[int]] = defaultdict(list)
    for record, length in zip(group.sample, measured.queries, strict=True):
        language = record.language or UNKNOWN
        scripts[language][script_of(record.query)] += 1
        queries[language].append(length)
        documents[language] += [measured.documents[d.text] for d in (*record.positives, *record.negatives)]
    return tuple(
        LanguageRow(
            language=language,
            records=records,
            sampled=len(queries[language]),
            scripts=dict(scripts[language].most_common()),
            query_length=median(queries[language]) if queries[language] else None,
            document_length=median(documents[language]) if documents[language] else None,
            over=_share_over(documents[language], limit),
        )
        for language, records in group.tally.languages.most_common()
    )


def _share_over(lengths: Sequence[int], limit: int | None) -> float | None:
    if limit is None or not lengths:
        return None
    return sum(length > limit for length in lengths) / len(lengths)


def lengths_by_role(
    group: Group, measured: Measured, limits: tuple[int | None, int | None]
) -> dict[str, Lengths]:
    """The lengths of queries, positives and negatives; a role without texts is left out."""
    found = {
        "query": measured.queries,
        "positive": [measured.documents[d.text] for r in group.sample for d in r.positives],
        "negative": [measured.documents[d.text] for r in group.sample for d in r.negatives],
    }
    return {role: describe(lengths, limits[role != "query"]) for role, lengths in found.items() if lengths}


def odd_texts(sample: Sequence[Record]) -> dict[str, int]:
    """How many queries and distinct documents have something unusual in them, by what."""
    texts = [record.query for record in sample]
    texts += dict.fromkeys(d.text for r in sample for d in (*r.positives, *r.negatives))
    return dict(Counter(name for text in texts for name in oddities(text)).most_common())


def records_to_read(
    group: Group, measured: Measured, scored: Sequence[ScoredRecord], most: int
) -> tuple[ShownRecord, ...]:
    """The first records of the sample, which is in random order."""
    scores = {id(one.record): one for one in scored}
    return tuple(
        _to_read(record, measured, length, scores.get(id(record)))
        for record, length in zip(group.sample[:most], measured.queries, strict=False)
    )


def _to_read(record: Record, measured: Measured, length: int, one: ScoredRecord | None) -> ShownRecord:
    def documents(found: Sequence[Document], scores: Sequence[float]) -> tuple[ShownDocument, ...]:
        padded = [*scores, *[None] * len(found)]
        return tuple(
            ShownDocument(shown(d.text), d.language, measured.documents[d.text], padded[i])
            for i, d in enumerate(found[:_SHOWN_DOCUMENTS])
        )

    positives = documents(record.positives, one.positives if one else ())
    negatives = documents(record.negatives, one.negatives if one else ())
    more = len(record.positives) + len(record.negatives) - len(positives) - len(negatives)
    return ShownRecord(
        shown(record.id, 80), shown(record.query), record.language, record.task, length,
        positives, negatives, more,
    )  # fmt: skip
