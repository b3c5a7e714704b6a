"""How an epoch is dealt out: sums, no passes mixed, shares kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_retrofit.data.plan import Shape, make_plan

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5).map(tuple)


def taken(shape: Shape, seed: int) -> list[list[tuple[int, int, int]]]:
    """(stream, pass, place in it) of every query, batch by batch."""
    plan = make_plan(shape, (seed,))
    batches = []
    for counts, starts in zip(plan.counts.tolist(), plan.starts.tolist(), strict=True):
        found = []
        for stream, (count, start) in enumerate(zip(counts, starts, strict=True)):
            size = shape.sizes[stream]
            found += [(stream, (start + i) // size, (start + i) % size) for i in range(count)]
        batches.append(found)
    return batches


@given(SIZES, st.integers(1, 16), st.integers(0, 16), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_without_shares_nothing_comes_twice_and_little_is_left_out(sizes, batch, lead, seed) -> None:
    shape = Shape(sizes, batch, min(lead, batch))
    batches = taken(shape, seed)
    assert len(batches) == shape.batches
    assert all(len(queries) == batch for queries in batches)
    queries = [query for found in batches for query in found]
    assert len(set(queries)) == len(queries)
    assert all(number == 0 for _, number, _ in queries)
    if shape.lead == 0:
        assert sum(sizes) - len(queries) < batch
    if shape.lead == batch:  # of each stream, less than a batch is left out
        assert all(size - sum(q[0] == i for q in queries) < batch for i, size in enumerate(sizes))
        assert all(len({stream for stream, _, _ in found}) == 1 for found in batches)


@given(SIZES, st.integers(1, 12), st.integers(0, 12), st.data())
@settings(max_examples=150, deadline=None)
def test_with_shares_no_batch_holds_a_record_twice(sizes, batch, lead, data) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    shares = tuple(weight / sum(weights) for weight in weights)
    lead = min(lead, batch)
    # No more than what a batch takes on average, so that some batches would take too much by chance.
    sizes = tuple(
        max(size if lead else 1, lead, int(np.ceil(share * batch)))
        for size, share in zip(sizes, shares, strict=True)
    )
    shape = Shape(sizes, batch, lead, shares)
    batches = taken(shape, 3)
    assert len(batches) == shape.batches == sum(sizes) // batch
    for queries in batches:
        assert len(queries) == batch
        records = [(stream, place) for stream, _, place in queries]
        assert len(set(records)) == batch
        passes = {(stream, number) for stream, number, _ in queries}
        assert len(passes) == len({stream for stream, _ in passes})  # of one pass of each stream
    seen = [query for queries in batches for query in queries]
    assert len(set(seen)) == len(seen)  # within a pass, every record once


@pytest.mark.parametrize("lead", [0, 6, 10])
def test_shares_are_kept(lead: int) -> None:
    shape = Shape((1000, 30, 200), 10, lead, (0.5, 0.3, 0.2))
    counts = make_plan(shape, (0,)).counts
    assert np.allclose(counts.sum(0) / counts.sum(), shape.shares, atol=0.02)


def test_a_batch_that_would_take_too_much_of_a_small_stream_takes_of_another() -> None:
    counts = make_plan(Shape((4, 400), 8, 0, (0.45, 0.55)), (0,)).counts
    assert counts[:, 0].max() == 4
    assert (counts.sum(axis=1) == 8).all()


def test_mixed_batches_are_those_of_one_permutation() -> None:
    """The number of a stream's records in a batch is hypergeometric: mean 3, variance 2.1 · 90 / 99."""
    counts = np.concatenate([make_plan(Shape((30, 70), 10, 0), (seed,)).counts[:, 0] for seed in range(300)])
    assert abs(counts.mean() - 3) < 1e-9
    assert abs(counts.var() - 10 * 0.3 * 0.7 * 90 / 99) < 0.15


def test_another_seed_deals_otherwise() -> None:
    shape = Shape((30, 70), 10, 10)
    first, same, other = (make_plan(shape, (seed,)).counts.tolist() for seed in (1, 1, 2))
    assert first == same != other


def test_more_streams_than_a_small_integer_can_number() -> None:
    (counts,) = make_plan(Shape((1,) * 33_000, 33_000, 0), (0,)).counts
    assert (counts == 1).all()
