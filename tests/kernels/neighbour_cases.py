"""The Triton kernels of the nearest-neighbour search, run by Triton's interpreter on the CPU.

`test_interpreted.py` runs this file in a process of its own, with ``TRITON_INTERPRET=1`` from the
start. The interpreter multiplies bf16 wrongly: bf16 is tested as fp32 that holds bf16 numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrofit_kernels import NeighbourOptions, nearest_neighbours
from retrofit_kernels._search import launch, with_torch, with_triton
from retrofit_kernels.reference import reference_nearest_neighbours
from torch.testing import assert_close

TRITON = NeighbourOptions(backend="triton")


@pytest.fixture(autouse=True)
def few_slots(monkeypatch):
    """Few enough that small corpora fill them."""
    monkeypatch.setattr(with_triton, "SLOTS", 64)
    monkeypatch.setattr(with_triton, "SLOTS_PER_RANK", 8)


@pytest.fixture
def again(monkeypatch):
    """How many rows each search with torch, for want of certainty, was about."""
    rows = []

    def spy(pool, *arguments):
        rows.append(len(pool.queries))
        return original(pool, *arguments)

    original = with_triton._search_again
    monkeypatch.setattr(with_triton, "_search_again", spy)
    return rows


def whole_numbers(rows, seed, largest=2, dimension=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, dimension), generator=generator).to(dtype)


def check(queries, corpus, k, options=TRITON):
    found = nearest_neighbours(queries, corpus, k, options=options)
    expected = reference_nearest_neighbours(queries.float(), corpus.float(), k, options=options)
    assert_close(found.indices, expected.indices, rtol=0, atol=0)
    assert_close(found.scores, expected.scores, rtol=0, atol=0)
    assert found.recall == 1
    return found


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_combination(data):
    rows, documents = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 150))
    dimension, k = data.draw(st.integers(1, 200)), data.draw(st.integers(1, documents))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    options = replace(TRITON, strip_bytes=data.draw(st.sampled_from([10_000, 1 << 24])))
    if data.draw(st.booleans()):
        ids, width = data.draw(st.sampled_from([2, 9, 2**40])), data.draw(st.integers(1, 3))
        options = replace(
            options,
            query_ids=torch.randint(-1, ids, (rows, width), generator=generator),
            corpus_ids=torch.randint(-1, ids, (documents,), generator=generator),
        )
    if data.draw(st.booleans()):
        options = replace(
            options,
            query_groups=torch.randint(0, 3, (rows,), generator=generator),
            corpus_groups=torch.randint(0, 4, (documents,), generator=generator),
        )
    if data.draw(st.booleans()):
        ceiling = torch.randint(-4, 9, (rows,), generator=generator).double()
        options = replace(options, ceiling=ceiling)
    types = st.sampled_from([torch.float32, torch.float16])
    queries = whole_numbers(rows, 3, dimension=dimension, dtype=data.draw(types))
    corpus = whole_numbers(documents, 4, dimension=dimension, dtype=data.draw(types))
    check(queries, corpus, k, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_real_scores(embeddings, dtype):
    """Against fp64; bf16 numbers as fp32. With ceilings that lie exactly on scores."""
    queries, corpus = (embeddings(rows, 96, rows, dtype) for rows in (40, 900))
    if dtype == torch.bfloat16:
        queries, corpus = queries.float(), corpus.float()
    scores = queries.double() @ corpus.double().T
    ceiling = scores.sort(descending=True).values[:, 30]
    found = nearest_neighbours(queries, corpus, 12, options=replace(TRITON, ceiling=ceiling - 1e-6))
    expected = scores.masked_fill(scores >= ceiling[:, None] - 1e-6, -torch.inf).topk(12)
    assert_close(found.indices, expected.indices)
    assert_close(found.scores.double(), expected.values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", ["ascending", "descending", "equal", "one slot", "one tile"])
def test_adversarial_orders(again, order):
    corpus = whole_numbers(700, 5, largest=4)
    by_score = corpus.sum(1).argsort(descending=order == "descending")
    if order in ("ascending", "descending"):
        corpus = corpus[by_score]
    elif order == "equal":
        corpus = torch.ones_like(corpus)
    else:
        best, places = corpus[by_score[-9:]], torch.arange(9)
        corpus[places * 64 + 5 if order == "one slot" else places + 128] = best + 9
    check(torch.cat([torch.ones(5, 3), whole_numbers(9, 6)]), corpus, 6)
    assert bool(again) == (order in ("equal", "one slot", "ascending", "descending"))


def test_certain_rows_are_not_searched_again(monkeypatch, again, embeddings):
    """With 64 slots per rank that is nearly all; in later parts only what exceeds the floor counts."""
    monkeypatch.setattr(with_triton, "SLOTS_PER_RANK", 64)
    queries, corpus = embeddings(60, 32, 1, torch.float16), embeddings(2000, 32, 2, torch.float16)
    check_by_fp64(queries, corpus, 8)
    assert sum(again) <= 3


def check_by_fp64(queries, corpus, k):
    """The best k, but for neighbours whose exact scores differ by no more than fp32 can tell."""
    found = nearest_neighbours(queries, corpus, k, options=TRITON)
    scores = queries.double() @ corpus.double().T
    assert_close(scores.gather(1, found.indices), scores.topk(k).values, rtol=0, atol=2e-7)


def test_products_in_tf32_lose_nothing(monkeypatch, embeddings):
    """tf32 keeps 11 significant bits of each factor; most of these scores differ by less than that costs."""

    class CutToTf32:
        def __getitem__(self, grid):
            def launch(queries, documents, *arguments, **options):
                return kernel[grid](cut(queries), cut(documents), *arguments, **options)

            return launch

    def cut(vectors):
        return (vectors.view(torch.int32) & ~0x1FFF).view(torch.float32)

    kernel = launch.lane_bins
    monkeypatch.setattr(launch, "lane_bins", CutToTf32())
    queries, corpus = embeddings(20, 16, 1, torch.float32), embeddings(1, 16, 2, torch.float32)
    corpus = torch.nn.functional.normalize(corpus + 2e-4 * embeddings(600, 16, 3, torch.float32), dim=1)
    check_by_fp64(queries, corpus, 10)


def test_more_nearly_equal_scores_than_candidates(again, embeddings):
    """100 documents in 128 places of 64 slots, 42 candidates: packed, the scores are all the same."""
    queries, corpus = embeddings(12, 16, 1, torch.float16), embeddings(1, 16, 2, torch.float16)
    corpus = (corpus.double() + 1e-4 * embeddings(100, 16, 3)).float()
    check_by_fp64(queries.float(), corpus, 5)
    assert again


def test_pieces_in_order_keep_the_floor(monkeypatch, again):
    """Several parts: what was found before is the floor of the next, and ties stay with the smaller row."""
    parts = with_triton._parts
    monkeypatch.setattr(with_triton, "_parts", lambda chunk, most: parts(chunk, 150))
    check(whole_numbers(30, 1), whole_numbers(900, 2), 7)
    assert again


def test_packing_keeps_the_order(embeddings):
    values = torch.cat([embeddings(4000, 1, 1, torch.float32).flatten() * 3, torch.randn(4000)])
    values = torch.cat([values, values * 1e-30, values * 1e30, torch.tensor([0.0, 1.0, -1.0])])
    values = values.sort().values.unsqueeze(1)
    floor = launch.packed_floor(values)
    assert bool((floor[1:] >= floor[:-1]).all())
    assert not bool((floor & launch.LOW_BITS).any())
    upper = launch.upper(floor)
    assert bool((upper >= values).all())
    assert_close(upper, values, rtol=2**-10, atol=1e-36)
    none = launch.packed_floor(torch.tensor([[-torch.inf]]))
    assert int(none) == torch.iinfo(torch.int32).min


def test_approximate_mode_is_that_of_torch(monkeypatch):
    """Small whole numbers lose nothing by packing, and one part has the slots of one tile.

    No score lies near a ceiling: a document that does takes its slot here, until the exact scores exclude it.
    """
    monkeypatch.setattr(with_torch, "SLOTS", 64)
    queries, corpus = (whole_numbers(rows, rows, 12, 5, torch.float16) for rows in (30, 1000))
    options = NeighbourOptions(
        query_ids=torch.arange(30) % 7,
        corpus_ids=torch.arange(1000) % 50,
        ceiling=torch.arange(30) * 20 - 50.5,
        mode="approximate",
    )
    by_torch, by_triton = (
        nearest_neighbours(queries, corpus, 6, options=replace(options, backend=backend))
        for backend in ("torch", "triton")
    )
    assert_close(by_triton, by_torch, rtol=0, atol=0)
    assert by_triton.recall < 0.97


def test_approximate_recall_is_as_expected(embeddings):
    queries, corpus = embeddings(150, 16, 1, torch.float32), embeddings(1500, 16, 2, torch.float32)
    exact = nearest_neighbours(queries, corpus, 10).indices
    found = nearest_neighbours(queries, corpus, 10, options=replace(TRITON, mode="approximate"))
    hits = (exact.unsqueeze(2) == found.indices.unsqueeze(1)).any(2).float().mean(1)
    assert abs(float(hits.mean()) - found.recall) < 4 * float(hits.std()) / 150**0.5
    scores = (queries.double() @ corpus.double().T).gather(1, found.indices)
    assert_close(found.scores.double(), scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("dimension", [1000, 4096])
def test_many_dimensions(embeddings, dtype, dimension):
    """1000 is no multiple of a step of either kernel, nor of a GPU's tiles."""
    queries, corpus = embeddings(9, dimension, 1, dtype), embeddings(200, dimension, 2, dtype)
    check_by_fp64(queries, corpus, 7)


def test_more_blocks_than_a_grid_has_on_its_second_axis(monkeypatch):
    """Then fewer slots are dealt out, and candidates are scored piece by piece."""
    monkeypatch.setattr(launch, "MOST_BLOCKS", 2)
    monkeypatch.setattr(with_triton, "MOST_BLOCKS", 2)
    grids = []

    class Watched:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            grids.append(grid)
            return self.kernel[grid]

    for name in ("lane_bins", "rescore"):
        monkeypatch.setattr(launch, name, Watched(getattr(launch, name)))
    check(whole_numbers(5, 1), whole_numbers(500, 2), 40)
    assert len(grids) > 2 and all(second <= 2 for _, second in grids)


def test_strided_corpus():
    check(whole_numbers(8, 2), whole_numbers(200, 1)[::2], 7)
    check(whole_numbers(8, 2), whole_numbers(3, 1, dimension=100).T, 7)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("mode", ["exact", "approximate"])
def test_values_that_make_no_scores(value, mode):
    corpus = torch.ones(3, 4)
    corpus[1, 2] = value
    with pytest.raises(ValueError, match=r"corpus must be finite, but has NaN or infinite values .*3, 4"):
        nearest_neighbours(torch.ones(2, 4), corpus, 1, options=replace(TRITON, mode=mode))
