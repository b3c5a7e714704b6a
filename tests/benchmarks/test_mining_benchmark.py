"""The benchmark's two miners find the same, so their times compare."""

from __future__ import annotations

import pytest

from benchmarks.mining.data import given_pairs, stored_vectors
from benchmarks.mining.jobs import PER_QUERY, mine_here, mine_there, run_search


@pytest.mark.parametrize("use_faiss", [False, True])
def test_both_miners_find_the_same_negatives(use_faiss):
    """Where the rules coincide, and while theirs has enough candidates to choose from."""
    pairs = given_pairs(600, dimension=48)
    here, there = mine_here(pairs), mine_there(pairs, use_faiss=use_faiss)
    assert sum(len(negatives) for negatives in here.values()) == 600 * PER_QUERY
    # Theirs looks at no more than 10 times the negatives, so that some queries have too few there.
    complete = {query: negatives for query, negatives in there.items() if len(negatives) == PER_QUERY}
    assert len(complete) > 500
    assert {query: set(here[query]) for query in complete} == {q: set(n) for q, n in complete.items()}


def test_the_search_is_checked_and_measured(tmp_path):
    figures = run_search(tmp_path, documents=3000, queries=50, k=10, dimension=16)
    assert figures["seconds"] > 0 and 0 <= figures["added_gb"] < figures["peak_gb"]
    assert stored_vectors(tmp_path, 2000, 16).shape == (2000, 16)
