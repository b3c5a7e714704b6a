"""Repeated records against a search of all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from lit_retrofit.cleaning import duplicates
from lit_retrofit.cleaning.duplicates import find_equal, find_exact, find_near
from lit_retrofit.cleaning.signatures import VALUES, similarity


def test_the_first_of_equal_rows_stays():
    hashes = np.array([5, 3, 5, 2**63, 3, 5, 2**63], np.uint64)
    found = find_equal(hashes)
    assert dict(zip(found.rows.tolist(), found.of.tolist(), strict=True)) == {2: 0, 4: 1, 5: 0, 6: 3}


NO_EQUALS = np.arange(20, dtype=np.uint64)


def test_an_id_with_a_second_text_is_a_conflict_with_the_first():
    documents = np.array(
        [[1, 10], [2, 20], [1, 10], [2, 21], [3, 30], [1, 11], [2, 20], [4, 1], [4, 2]], np.uint64
    )
    equal, found = find_exact(NO_EQUALS[:5], documents, np.array([0, 0, 1, 2, 2, 3, 3, 4, 4]))
    assert not len(equal.rows)
    assert found.rows.tolist() == [2, 3, 4] and found.of.tolist() == [0, 0, 4]


def test_a_record_in_conflict_does_not_take_its_equals_along_and_does_not_say_what_ids_mean():
    hashes = np.array([10, 11, 11, 12, 10, 13], np.uint64)
    documents = np.array(
        [[1, 10], [5, 50], [1, 11], [77, 11], [5, 51], [1, 10], [6, 60], [6, 61]], np.uint64
    )  # fmt: skip
    records = np.array([0, 1, 1, 2, 3, 4, 4, 5])
    equal, conflicts = find_exact(hashes, documents, records)
    # 2 stays though 1 had its text, 3 though 1 had its id, 5 though 4 had its id
    assert conflicts.rows.tolist() == [1] and conflicts.of.tolist() == [0]
    assert equal.rows.tolist() == [4] and equal.of.tolist() == [0]


def one_by_one(hashes, documents, records) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Every record against all that stay so far: those that go, with what they equal or contradict."""
    equal, conflicts, staying = {}, {}, []
    texts = [
        [tuple(d) for d, r in zip(documents, records, strict=True) if r == row] for row in range(len(hashes))
    ]
    for row in range(len(hashes)):
        same = [other for other in staying if hashes[other] == hashes[row]]
        wrong = [
            other
            for other in (*staying, row)
            if any(a == b and text != meant for a, text in texts[row] for b, meant in texts[other])
        ]
        if same:
            equal[row] = same
        elif wrong:
            conflicts[row] = wrong
        else:
            staying.append(row)
    return equal, conflicts


def test_equal_ones_and_conflicts_are_those_found_one_by_one():
    rng = np.random.default_rng(0)
    for _ in range(100):
        hashes = rng.integers(0, 12, 20).astype(np.uint64)
        records = np.sort(rng.integers(0, 20, 25))
        ids = rng.integers(0, 15, 25)
        # mostly an id's own text, sometimes another
        documents = np.stack([ids, 100 * ids + (rng.random(25) < 0.3)], 1).astype(np.uint64)
        found = find_exact(hashes, documents, records)
        expected = one_by_one(hashes.tolist(), documents.tolist(), records.tolist())
        for part, others in zip(found, expected, strict=True):
            assert part.rows.tolist() == list(others)
            assert all(of in others[row] for row, of in zip(part.rows.tolist(), part.of, strict=True))


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
            assert of != row and score == matrix[row, of] >= 0.8
        staying = np.setdiff1d(among, found.rows)
        assert np.isin(found.of, staying).all()
        left = np.triu(matrix[np.ix_(staying, staying)] >= 0.8, 1).sum()
        everything = np.triu(matrix >= 0.8, 1).sum()
        assert len(found.rows) > 20 and left <= 0.05 * everything


def chains(rng: np.random.Generator, length: int, step: float) -> np.ndarray:
    """Signatures of 300 rows: each shares most values with the next of its chain, fewer with those behind."""
    rows = []
    for _ in range(300 // length):
        row = rng.integers(0, 1 << 16, VALUES)
        for _ in range(length):
            rows.append(row)
            row = np.where(rng.random(VALUES) < step, rng.integers(0, 1 << 16, VALUES), row)
    return rng.permutation(np.array(rows, np.uint16))


@pytest.mark.parametrize(("length", "step"), [(3, 0.12), (10, 0.1), (100, 0.05), (300, 0.02)])
def test_of_a_chain_every_row_that_goes_is_similar_to_one_that_stays(length, step):
    for seed in range(5):
        part = chains(np.random.default_rng(seed), length, step)
        among = np.arange(len(part))
        found = find_near([part], among, 0.8)
        staying = np.setdiff1d(among, found.rows)
        assert len(found.rows) > 20 and np.isin(found.of, staying).all()
        matrix = similarity(part[:, None], part[None])
        assert (matrix[found.rows, found.of] >= 0.8).all()
        assert (found.similarity == matrix[found.rows, found.of]).all()
        # and none comes back that is similar to one that stays, or to another that came back
        assert not np.triu(matrix[np.ix_(staying, staying)] >= 0.8, 1).any()


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
