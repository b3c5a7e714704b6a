"""Splits records into training and validation, and turns records into a retrieval set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lit_retrofit.data.records import Document, Query, Record, RetrievalSet


def split_by_group(
    records: Sequence[Record], fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Splits off a validation part; a group, and a shared first positive, stays on one side.

    The side depends on the group's name and the seed alone, so it is the same whatever the order of the
    records and whatever else the data holds.

    Returns:
        Training and validation records, in their order.
    """
    train: list[Record] = []
    validation: list[Record] = []
    for record in records:
        share = _uniform(record.group or record.positives[0].id, seed)
        (validation if share < fraction else train).append(record)
    return train, validation


def _uniform(name: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def to_retrieval_set(records: Sequence[Record], name: str) -> RetrievalSet:
    """Queries and their positives as an evaluation set; records with the same query are one query.

    Every positive of a record is relevant (grade 1). Hard negatives join the corpus.
    """
    corpus: dict[str, Document] = {}
    queries: dict[tuple[str, str | None], Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    for record in records:
        query = queries.setdefault(
            (record.query, record.language), Query(record.id, record.query, record.language)
        )
        for document in (*record.positives, *record.negatives):
            corpus.setdefault(document.id, document)
        qrels.setdefault(query.id, {}).update((document.id, 1) for document in record.positives)
    return RetrievalSet(name, tuple(queries.values()), tuple(corpus.values()), qrels)
