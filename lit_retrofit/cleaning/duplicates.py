"""Which records repeat an earlier one: by equal hashes, by ids with two texts, by similar signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.signatures import VALUES, Signatures, band_keys, band_rows, similarity

_REPRESENTATIVES = 64  # of one band's group that a record is compared with: bounds the time of large groups


@dataclass(frozen=True)
class Repeated:
    """Records that repeat an earlier one.

    Attributes:
        rows: their numbers.
        of: of each, the number of the earlier record.
        similarity: of each, the estimated Jaccard similarity; the lower one of a pair's two texts.
    """

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    similarity: NDArray[np.float64]


def find_equal(hashes: NDArray[np.uint64]) -> Repeated:
    """Rows whose hash an earlier row has.

    Args:
        hashes: (records,).
    """
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    of = first[inverse]
    rows = np.flatnonzero(of != np.arange(len(hashes)))
    return Repeated(rows, of[rows], np.ones(len(rows)))


def find_conflicts(documents: NDArray[np.uint64], records: NDArray[np.int64]) -> Repeated:
    """Records with a document whose id stands for another text in an earlier record, or in themselves.

    Args:
        documents: (documents, 2) hashes of id and text.
        records: (documents,) the record each is in, ascending.

    Returns:
        With the record in which the id stands for its first text.
    """
    ids, first, inverse = np.unique(documents[:, 0], return_index=True, return_inverse=True)
    del ids
    at = first[inverse]
    wrong = np.flatnonzero(documents[:, 1] != documents[at, 1])
    rows, where = np.unique(records[wrong], return_index=True)
    return Repeated(rows, records[at[wrong[where]]], np.zeros(len(rows)))


def find_near(signatures: Sequence[Signatures], among: NDArray[np.int64], threshold: float) -> Repeated:
    """Rows of which every text is similar enough to that of one earlier row that stays.

    Band by band, rows of equal keys are compared by their whole signatures; a row that is found goes, and is
    compared no more. So memory holds 24 bytes a row beside the signatures, which may lie on disk.

    Args:
        signatures: of each compared text, (records, `VALUES`).
        among: the rows to look at, ascending.
        threshold: least similarity of each text.

    Returns:
        In the rows' order. The earlier record may itself be found in a later band, as a repetition of
        another.
    """
    size = band_rows(threshold, len(signatures))
    of = np.full(len(among), -1, np.int64)
    scores = np.zeros(len(among))
    for band in range(VALUES // size):
        left = np.flatnonzero(of < 0)
        keys = _keys(signatures, among[left], band, size)
        for group in _groups(keys):
            members = left[group]
            for member, earlier, score in _match(signatures, among, members, threshold):
                of[member], scores[member] = among[earlier], score
    found = np.flatnonzero(of >= 0)
    return Repeated(among[found], of[found], scores[found])


def _keys(
    signatures: Sequence[Signatures], rows: NDArray[np.int64], band: int, size: int
) -> NDArray[np.uint64]:
    step = 1 << 16
    parts = [
        band_keys([part[rows[start : start + step]] for part in signatures], band, size)
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _groups(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Positions of equal keys, ascending, of at least two each."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(keys)]])
    for number in np.flatnonzero(ends - starts > 1).tolist():
        yield order[starts[number] : ends[number]]


def _match(
    signatures: Sequence[Signatures],
    among: NDArray[np.int64],
    members: NDArray[np.int64],
    threshold: float,
) -> Iterator[tuple[int, int, float]]:
    """(member, earlier member, similarity) for those that repeat one."""
    staying = [int(members[0])]
    for member in members[1:].tolist():
        known = np.array(staying[-_REPRESENTATIVES:])
        scores = np.min([similarity(part[among[known]], part[among[member]]) for part in signatures], axis=0)
        enough = np.flatnonzero(scores >= threshold)
        if len(enough):
            yield member, int(known[enough[0]]), float(scores[enough[0]])
        else:
            staying.append(member)
