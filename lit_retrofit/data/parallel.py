"""Further positives: from records with the same query, and from the other languages of a page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lit_retrofit.data.collecting import drop_false_negatives
from lit_retrofit.data.records import Document, Record


def add_parallel_positives(records: Sequence[Record]) -> list[Record]:
    """Gives every record of a group the other languages' positives of that group as further positives.

    The record's own positives stay first; the others follow by (language, id), each id and each text
    once. "Other" is measured by the language of the record's first positive; documents of unknown
    language are neither given nor receive any. Negatives that equal an added positive are dropped. Where the
    record has scores, those of the added positives are unknown: NaN.

    Args:
        records: in any order; those without a group come back as they are.

    Returns:
        As many records, in the same order.
    """
    groups: defaultdict[str, dict[str, Document]] = defaultdict(dict)
    for record in records:
        if record.group is not None:
            groups[record.group].update((d.id, d) for d in record.positives if d.language is not None)
    ordered = {
        group: sorted(documents.values(), key=lambda d: (d.language or "", d.id))
        for group, documents in groups.items()
    }
    return [_with_parallel(record, ordered.get(record.group or "", [])) for record in records]


def join_answers(records: Sequence[Record]) -> list[Record]:
    """Gives records with the same query (and language) each other's positives as further positives.

    What answers a query in one record is then no negative for it in another, in the batch or among the
    mined ones. The record's own positives stay first. Added ones bring the score that their record has for
    them. Where only some have one, that of the others is unknown: NaN.

    Args:
        records: in any order; those with a query of their own come back as they are.

    Returns:
        As many records, in the same order.
    """
    answers: defaultdict[tuple[str, str | None], dict[str, Document]] = defaultdict(dict)
    scores: defaultdict[tuple[str, str | None], dict[str, float]] = defaultdict(dict)
    for record in records:
        key = record.query, record.language
        for document in record.positives:
            answers[key].setdefault(document.id, document)
        for document, score in zip(record.positives, record.positive_scores, strict=False):
            scores[key].setdefault(document.id, score)
    keys = [(record.query, record.language) for record in records]
    return [
        _with_answers(record, answers[key], scores.get(key, {}))
        for record, key in zip(records, keys, strict=True)
    ]


def _with_answers(record: Record, answers: dict[str, Document], scores: dict[str, float]) -> Record:
    own = {document.id for document in record.positives}
    return _with_further(record, [document for id, document in answers.items() if id not in own], scores)


def _with_parallel(record: Record, group: list[Document]) -> Record:
    language = record.positives[0].language
    if record.group is None or language is None:
        return record
    ids = {document.id for document in record.positives}
    texts = {document.text for document in record.positives}
    added = []
    for document in group:
        if document.language != language and document.id not in ids and document.text not in texts:
            added.append(document)
            ids.add(document.id)
            texts.add(document.text)
    return _with_further(record, added, {})


def _with_further(record: Record, added: Sequence[Document], scores: Mapping[str, float]) -> Record:
    """The record with further positives and what is known of their scores."""
    if not added:
        return record
    positives = (*record.positives, *added)
    known = {**scores, **dict(zip((d.id for d in record.positives), record.positive_scores, strict=False))}
    found = tuple(known.get(document.id, math.nan) for document in positives)
    made = replace(record, positives=positives, positive_scores=found if known else ())
    return drop_false_negatives(made)[0]
