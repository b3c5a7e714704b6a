"""Further positives: from records with the same query, and from the other languages of a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from lit_retrofit.data.collecting import drop_false_negatives
from lit_retrofit.data.records import Document, Record


def add_parallel_positives(records: Sequence[Record]) -> list[Record]:
    """Gives every record of a group the other languages' positives of that group as further positives.

    The record's own positives stay first; the others follow by (language, id), each id and each text
    once. "Other" is measured by the language of the record's first positive; documents of unknown
    language are neither given nor receive any. Negatives that equal an added positive are dropped; the
    positives' scores are too, since the added ones have none.

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
    mined ones. The record's own positives stay first; added ones have no score, so the scores go.

    Args:
        records: in any order; those with a query of their own come back as they are.

    Returns:
        As many records, in the same order.
    """
    answers: defaultdict[tuple[str, str | None], dict[str, Document]] = defaultdict(dict)
    for record in records:
        for document in record.positives:
            answers[record.query, record.language].setdefault(document.id, document)
    return [_with_answers(record, answers[record.query, record.language]) for record in records]


def _with_answers(record: Record, answers: dict[str, Document]) -> Record:
    own = {document.id for document in record.positives}
    added = [document for id, document in answers.items() if id not in own]
    if not added:
        return record
    positives = (*record.positives, *added)
    return drop_false_negatives(replace(record, positives=positives, positive_scores=()))[0]


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
    if not added:
        return record
    positives = (*record.positives, *added)
    return drop_false_negatives(replace(record, positives=positives, positive_scores=()))[0]
