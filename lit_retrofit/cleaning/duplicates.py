"""Which records repeat another one: by equal hashes, by ids with two texts, by similar signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.signatures import VALUES, Signatures, band_keys, band_rows, similarity

_REPRESENTATIVES = 64  # of one band's group that a record is compared with: bounds the time of large groups
_ROUNDS = 8  # of taking back and comparing anew: bounds the time of long chains
_STEP = 1 << 16  # signatures in memory at a time


@dataclass(frozen=True)
class Repeated:
    """Records that repeat another one, or contradict it.

    Attributes:
        rows: their numbers.
        of: of each, the number of the other record.
        similarity: of each, the estimated Jaccard similarity; the lower one of a pair's two texts.
    """

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    similarity: NDArray[np.float64]

    @classmethod
    def exactly(cls, pairs: Sequence[tuple[int, int]], similarity: float) -> Repeated:
        """Of (record, the other one) pairs that are all equally similar."""
        rows, of = np.array(pairs, np.int64).reshape(-1, 2).T
        return cls(rows, of, np.full(len(rows), similarity))


def find_equal(hashes: NDArray[np.uint64]) -> Repeated:
    """Rows whose hash an earlier row has.

    Args:
        hashes: (records,).
    """
    order = np.argsort(hashes, kind="stable")
    first = _changes(hashes[order])
    rows, of = order[~first], order[first][(np.cumsum(first) - 1)[~first]]
    ascending = np.argsort(rows)
    return Repeated(rows[ascending], of[ascending], np.ones(len(rows)))


def _changes(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values differ from the one before; the first does."""
    found = np.ones(len(values), bool)
    found[1:] = values[1:] != values[:-1]
    return found


def find_exact(
    hashes: NDArray[np.uint64], documents: NDArray[np.uint64], records: NDArray[np.int64]
) -> tuple[Repeated, Repeated]:
    """Records that equal an earlier one, and those with an id that had another text in an earlier one.

    Only a record that stays can take the place of others: one in conflict does not stand for its equals, and
    one that equals another has no say in what an id means. So the records that an id of several texts has to
    do with are asked one by one; of the others, which are nearly all, the first of equals stays.

    Args:
        hashes: (records,) of what makes records equal.
        documents: (documents, 2) hashes of id and text.
        records: (documents,) the record each is in, ascending.

    Returns:
        The equal ones, and those in conflict with an earlier record or with themselves. The two share none.
    """
    of_several = _of_several_texts(documents)
    _, ids = np.unique(documents[of_several, 0], return_inverse=True)
    equals = _number_equals(hashes)
    involved = np.isin(equals, equals[records[of_several]])
    simple = np.flatnonzero(~involved)
    found = find_equal(hashes[simple])
    equal, conflicts = _settle(
        np.flatnonzero(involved), equals, ids, documents[of_several, 1], records[of_several]
    )
    rows = np.concatenate([simple[found.rows], equal.rows])
    of = np.concatenate([simple[found.of], equal.of])
    order = np.argsort(rows)
    return Repeated(rows[order], of[order], np.ones(len(rows))), conflicts


# Sorted by hand: `np.unique` takes twice the memory for it, and documents are what there is most of.
def _of_several_texts(documents: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Places of the documents whose id has several texts, ascending."""
    order = np.argsort(documents[:, 0], kind="stable")
    begins = _changes(documents[order, 0])
    differs = _changes(documents[order, 1]) & ~begins
    number = np.cumsum(begins)
    several = np.zeros(len(order) + 1, bool)
    several[number[differs]] = True
    return np.sort(order[several[number]])


def _number_equals(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The same number for equal hashes."""
    order = np.argsort(hashes, kind="stable")
    numbers = np.empty(len(hashes), np.int64)
    numbers[order] = np.cumsum(_changes(hashes[order]))
    return numbers


def _settle(
    rows: NDArray[np.int64],
    equals: NDArray[np.int64],
    ids: NDArray[np.int64],
    texts: NDArray[np.uint64],
    records: NDArray[np.int64],
) -> tuple[Repeated, Repeated]:
    """Asks these rows in their order; see `find_exact`, whose documents are here those of several texts."""
    first = np.full(equals.max(initial=-1) + 1, -1)  # of equal records, the one that stays
    known = np.full(ids.max(initial=-1) + 1, -1)  # of an id, the document that gives it its text
    equal: list[tuple[int, int]] = []
    conflicts: list[tuple[int, int]] = []
    bounds = np.searchsorted(records, [rows, rows + 1]).T.tolist()
    for row, (start, end) in zip(rows.tolist(), bounds, strict=True):
        if first[equals[row]] >= 0:
            equal.append((row, int(first[equals[row]])))
            continue
        given: dict[int, int] = {}
        for number in range(start, end):
            id = int(ids[number])
            meant = int(known[id]) if known[id] >= 0 else given.setdefault(id, number)
            if texts[number] != texts[meant]:
                conflicts.append((row, int(records[meant])))
                break
        else:
            first[equals[row]] = row
            for id, number in given.items():
                known[id] = number
    return Repeated.exactly(equal, 1.0), Repeated.exactly(conflicts, 0.0)


def find_near(signatures: Sequence[Signatures], among: NDArray[np.int64], threshold: float) -> Repeated:
    """Rows of which every text is similar enough to that of another row that stays.

    Band by band, rows of equal keys are compared by their whole signatures; a row that is found goes, and is
    compared no more. Where the row that it repeats goes in a later band, it comes back, unless it is similar
    to one that stays. So memory holds a few numbers a row beside the signatures, which may lie on disk.

    Args:
        signatures: of each compared text, (records, `VALUES`).
        among: the rows to look at, ascending.
        threshold: least similarity of each text.

    Returns:
        In the rows' order. The other row is an earlier one, but for those that came back.
    """
    search = _NearSearch(signatures, among, threshold)
    rows = np.arange(len(among))
    # Rows that come back may be similar to each other, but to none that stays: a search of their own.
    for _ in range(_ROUNDS):
        if not len(rows):
            break
        search.drop(rows)
        rows = search.take_back(rows)
    found = np.flatnonzero(search.of >= 0)
    return Repeated(among[found], among[search.of[found]], search.scores[found])


class _NearSearch:
    """What is found so far. Rows are numbered by their place in `among`.

    Attributes:
        of: of each row that goes, the row that it repeats; else -1.
        scores: how similar the two are.
    """

    def __init__(self, signatures: Sequence[Signatures], among: NDArray[np.int64], threshold: float) -> None:
        self._signatures, self._among, self._threshold = signatures, among, threshold
        self._size = band_rows(threshold, len(signatures))
        self.of = np.full(len(among), -1, np.int64)
        self.scores = np.zeros(len(among))

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Drops those of the rows that repeat an earlier one of them."""
        for band in range(VALUES // self._size):
            left = rows[self.of[rows] < 0]
            for group in _groups(self._keys(left, band)):
                staying = [int(left[group[0]])]
                for row in left[group[1:]].tolist():
                    if not self._find(row, np.array(staying[-_REPRESENTATIVES:])):
                        staying.append(row)

    def take_back(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of the rows that `drop` was given, those that it dropped and that no staying one is similar to.

        Every other dropped row has one that stays in `of`.
        """
        staying, gone = rows[self.of[rows] < 0], rows[self.of[rows] >= 0]
        gone = gone[self.of[self.of[gone]] >= 0]
        roots = self.of[gone]
        while (chained := self.of[roots] >= 0).any():
            roots[chained] = self.of[roots[chained]]
        scores = self._scores(gone, roots)
        enough = scores >= self._threshold
        self.of[gone] = np.where(enough, roots, -1)
        self.scores[gone] = np.where(enough, scores, 0.0)
        lost = gone[~enough]
        for band in range(VALUES // self._size):
            lost = lost[self.of[lost] < 0]
            if not len(lost):
                break
            self._find_staying(lost, staying, band)
        return lost[self.of[lost] < 0]

    def _find_staying(self, lost: NDArray[np.int64], staying: NDArray[np.int64], band: int) -> None:
        keys, wanted = self._keys(staying, band), self._keys(lost, band)
        order = np.argsort(keys, kind="stable")
        starts, ends = (np.searchsorted(keys, wanted, side, sorter=order) for side in ("left", "right"))
        for place in np.flatnonzero(ends > starts).tolist():
            group = staying[order[starts[place] : ends[place]]]
            row = int(lost[place])
            nearest = max(int(np.searchsorted(group, row)) - _REPRESENTATIVES // 2, 0)
            self._find(row, group[nearest : nearest + _REPRESENTATIVES])

    def _find(self, row: int, known: NDArray[np.int64]) -> bool:
        """Drops a row if it is similar to one of others, the first of which it then repeats."""
        scores = self._scores(np.array([row]), known)
        enough = np.flatnonzero(scores >= self._threshold)
        if not len(enough):
            return False
        self.of[row], self.scores[row] = known[enough[0]], scores[enough[0]]
        return True

    def _scores(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        """The similarity of rows and others pairwise, or of one row and each of the others."""
        found = [np.empty(0)]
        for start in range(0, len(others), _STEP):
            end = start + _STEP
            first = self._among[rows if len(rows) == 1 else rows[start:end]]
            second = self._among[others[start:end]]
            found.append(np.min([similarity(part[second], part[first]) for part in self._signatures], axis=0))
        return np.concatenate(found)

    def _keys(self, rows: NDArray[np.int64], band: int) -> NDArray[np.uint64]:
        keys = [np.empty(0, np.uint64)]
        for start in range(0, len(rows), _STEP):
            numbers = self._among[rows[start : start + _STEP]]
            keys.append(band_keys([part[numbers] for part in self._signatures], band, self._size))
        return np.concatenate(keys)


def _groups(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Positions of equal keys, ascending, of at least two each."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(keys)]])
    for number in np.flatnonzero(ends - starts > 1).tolist():
        yield order[starts[number] : ends[number]]
