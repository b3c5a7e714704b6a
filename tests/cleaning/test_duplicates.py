"""Repeated records against a search of all pairs."""

from __future__ import annotations

import numpy as np

from lit_retrofit.cleaning import duplicates
from lit_retrofit.cleaning.duplicates import find_conflicts, find_equal, find_near
from lit_retrofit.cleaning.signatures import VALUES, similarity


def test_the_first_of_equal_rows_stays():
    hashes = np.array([5, 3, 5, 2**63, 3, 5, 2**63], np.uint64)
    found = find_equal(hashes)
    assert dict(zip(found.rows.tolist(), found.of.tolist(), strict=True)) == {2: 0, 4: 1, 5: 0, 6: 3}


def test_an_id_with_a_second_text_is_a_conflict_with_the_first():
    documents = np.array([[1, 10], [2, 20], [1, 10], [2, 21], [3, 30], [1, 11], [2, 20]], np.uint64)
    records = np.array([0, 0, 1, 2, 2, 3, 3])
    found = find_conflicts(documents, records)
    assert found.rows.tolist() == [2, 3] and found.of.tolist() == [0, 0]


def clusters(seed: int) -> list[np.ndarray]:
    """Two texts' signatures of 300 rows: families of rows that share 90 % or 60 % of their values."""
    rng = np.random.default_rng(seed)
    parts = []
    for share in (0.93, 0.93):
        base = rng.integers(0, 1 << 16, (60, VALUES))
        rows = base[rng.integers(0, 60, 300)]
        keep = rng.random(rows.shape) < np.where(rng.random((300, 1)) < 0.7, share, 0.6)
        parts.append(np.where(keep, rows, rng.integers(0, 1 << 16, rows.shape)).astype(np.uint16))
    return parts


def test_near_duplicates_are_those_of_an_exhaustive_search():
    for seed in range(3):
        first, second = clusters(seed)
        # the same families in both texts for half of the rows
        second[:150] = first[:150] ^ np.uint16(1)
        among = np.arange(300)
        found = find_near([first, second], among, 0.8)
        matrix = np.minimum(
            similarity(first[:, None], first[None]), similarity(second[:, None], second[None])
        )
        for row, of, score in zip(found.rows, found.of, found.similarity, strict=True):
            assert of < row and score == matrix[row, of] >= 0.8
        staying = np.setdiff1d(among, found.rows)
        left = np.triu(matrix[np.ix_(staying, staying)] >= 0.8, 1).sum()
        everything = np.triu(matrix >= 0.8, 1).sum()
        assert len(found.rows) > 20 and left <= 0.05 * everything


def test_rows_that_are_not_looked_at_neither_go_nor_take_others_along():
    row = np.arange(VALUES, dtype=np.uint16)
    found = find_near([np.stack([row] * 4)], np.array([1, 3]), 0.8)
    assert found.rows.tolist() == [3] and found.of.tolist() == [1]
    assert not len(find_near([np.stack([row] * 4)], np.empty(0, np.int64), 0.8).rows)


def test_a_large_group_is_compared_with_a_bounded_number_of_rows(monkeypatch):
    """One band in common and nothing else: all pairs would be compared."""
    rng = np.random.default_rng(0)
    part = rng.integers(0, 1 << 16, (500, VALUES)).astype(np.uint16)
    part[:, :16] = 7
    compared = 0

    def counting(first, second):
        nonlocal compared
        compared += len(first)
        return similarity(first, second)

    monkeypatch.setattr(duplicates, "similarity", counting)
    assert not len(find_near([part], np.arange(500), 0.8).rows)
    assert 0 < compared <= 500 * 64 * 4
