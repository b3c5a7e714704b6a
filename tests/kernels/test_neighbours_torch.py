"""The torch backend's selections, by few exceeding scores and by slots; the stream of documents; recall."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrofit_kernels import NeighbourOptions, nearest_neighbours
from retrofit_kernels._search import stream, with_torch
from retrofit_kernels._search.pool import Pool
from retrofit_kernels._search.recall import expected_recall, slot_sizes
from retrofit_kernels._search.stream import chunks, staged
from retrofit_kernels.reference import reference_nearest_neighbours
from torch.testing import assert_close

APPROXIMATE = NeighbourOptions(mode="approximate")


def whole_numbers(rows, seed, largest=3, dimension=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, dimension), generator=generator).float()


@pytest.fixture
def narrow_tiles(monkeypatch):
    """Small tiles, and a record of which of them were merged by their few exceeding scores."""
    merged = []

    def spy(*arguments):
        merged.append(original(*arguments))
        return merged[-1]

    original = with_torch._merge_exceeding
    monkeypatch.setattr(with_torch, "_merge_exceeding", spy)
    monkeypatch.setattr(with_torch, "FIRST_COLUMNS", 64)
    monkeypatch.setattr(with_torch, "TILE_COLUMNS", 512)
    return merged


@pytest.mark.parametrize("order", ["random", "ascending", "descending", "equal"])
@pytest.mark.parametrize("k", [1, 2, 9])
def test_few_exceeding_scores_are_selected_exactly(narrow_tiles, order, k):
    """Whatever order the documents come in; scores tie often, at rank k too."""
    queries, corpus = torch.cat([torch.ones(20, 6), whole_numbers(20, 1)]), whole_numbers(1700, 2)
    if order == "equal":
        corpus = torch.ones_like(corpus)
    elif order != "random":
        corpus = corpus[corpus.sum(1).argsort(descending=order == "descending")]
    options = NeighbourOptions(
        query_ids=torch.randint(0, 300, (40, 2), generator=torch.Generator().manual_seed(1)),
        corpus_ids=torch.arange(1700) % 300,
        ceiling=torch.arange(40).float() - 3,
        backend="torch",
    )
    for part in (options, replace(options, ceiling=None)):
        found = nearest_neighbours(queries, corpus, k, options=part)
        expected = reference_nearest_neighbours(queries, corpus, k, options=part)
        assert_close(found.indices, expected.indices, rtol=0, atol=0)
        assert_close(found.scores, expected.scores, rtol=0, atol=0)
    assert any(narrow_tiles) or order in ("ascending", "equal")


def test_a_low_ceiling_leaves_only_the_worst(narrow_tiles):
    corpus = torch.arange(3000, 0, -1).float().unsqueeze(1)
    options = NeighbourOptions(ceiling=torch.tensor([2.5, 3000.5]), backend="torch")
    found = nearest_neighbours(torch.ones(2, 1), corpus, 3, options=options)
    assert found.indices.tolist() == [[2998, 2999, -1], [0, 1, 2]]


def test_one_row_with_many_finds_among_rows_with_none(narrow_tiles):
    """Document j scores j for the first query and -j for the others."""
    corpus = torch.arange(3000).float().unsqueeze(1)
    queries = -torch.ones(64, 1)
    queries[0] = 1
    found = nearest_neighbours(queries, corpus, 2, options=NeighbourOptions(backend="torch"))
    assert found.indices.tolist() == [[2999, 2998]] + [[0, 1]] * 63


def best_of_slots(scores, slots, tile, k):
    """The best k of the best document of every (tile, slot), one row of scores at a time."""
    rows = []
    for row in scores.tolist():
        best = {}
        for column, score in enumerate(row):
            slot = (column // tile, column % tile % slots)
            if score > -math.inf and (slot not in best or score > best[slot][0]):
                best[slot] = (score, column)
        found = sorted((-score, column) for score, column in best.values())[:k]
        rows.append([column for _, column in found] + [-1] * (k - len(found)))
    return rows


@pytest.mark.parametrize("documents", [5, 16, 40, 333])
def test_approximate_mode_keeps_the_best_of_each_slot(monkeypatch, documents):
    monkeypatch.setattr(with_torch, "TILE_COLUMNS", 64)
    monkeypatch.setattr(with_torch, "SLOTS", 16)
    queries, corpus = whole_numbers(30, 3), whole_numbers(documents, 4)
    ids, ceiling = torch.arange(documents) % 7, torch.arange(30).float() - 5
    options = replace(APPROXIMATE, query_ids=torch.arange(30) % 7, corpus_ids=ids, ceiling=ceiling)
    found = nearest_neighbours(queries, corpus, 5, options=options)
    scores = queries @ corpus.T
    scores[(scores >= ceiling[:, None]) | (ids == torch.arange(30)[:, None] % 7)] = -math.inf
    assert found.indices.tolist() == best_of_slots(scores, 16, 64, 5)
    assert (found.recall == 1) == (documents <= 16)


def test_expected_recall_is_what_random_orders_give(embeddings):
    """5000 documents in tiles of 1024, 128 slots each: 6 to 8 documents share a slot."""
    queries, corpus = embeddings(400, 24, 1, torch.float32), embeddings(5000, 24, 2, torch.float32)
    exact = nearest_neighbours(queries, corpus, 50).indices
    with (
        mock.patch.object(with_torch, "TILE_COLUMNS", 1024),
        mock.patch.object(with_torch, "SLOTS", 128),
    ):
        found = nearest_neighbours(queries, corpus, 50, options=APPROXIMATE)
    hits = (exact.unsqueeze(2) == found.indices.unsqueeze(1)).any(2).float().mean(1)
    assert abs(float(hits.mean()) - found.recall) < 4 * float(hits.std()) / 400**0.5
    assert 0.95 < found.recall < 0.97


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_expected_recall_against_drawing(documents, slots, k, seed):
    k = min(k, documents)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(4000, documents, generator=generator).argsort(dim=1)[:, :k] % slots
    occupied = torch.zeros(4000, slots).scatter_(1, drawn, 1.0).sum(1) / k
    predicted = expected_recall(slot_sizes(documents, slots), k)
    assert abs(float(occupied.mean()) - predicted) < 6 * float(occupied.std()) / 4000**0.5 + 1e-6


def test_expected_recall_to_first_order():
    for k in (1, 16, 64, 100):
        predicted = expected_recall(slot_sizes(10**8, 4096), k)
        assert abs(predicted - (1 - (k - 1) / (2 * 4096))) < 2e-4
    assert expected_recall(slot_sizes(3, 4096), 3) == 1


def test_staged_pieces_are_the_corpus(tmp_path):
    """Each is read a piece ahead of its use, through two buffers, from a memory map too."""
    values = torch.arange(35.0).view(-1, 5)[:, :5].repeat(9, 1).numpy() + np.arange(63)[:, None]
    values.astype(np.float16).tofile(tmp_path / "corpus.bin")
    corpus = torch.from_numpy(np.memmap(tmp_path / "corpus.bin", np.float16, "r+", shape=(63, 5)))
    for columns in (None, torch.arange(1, 63, 2)):
        wanted = corpus if columns is None else corpus[columns]
        for width in (1, 4, 31, 100):
            bounds = [(at, min(at + width, len(wanted))) for at in range(0, len(wanted), width)]
            got = [
                (start, piece.clone())
                for start, piece in staged(corpus, columns, bounds, torch.device("cpu"))
            ]
            assert [start for start, _ in got] == [start for start, _ in bounds]
            assert_close(torch.cat([piece for _, piece in got]), wanted, rtol=0, atol=0)


def test_a_consumer_that_stops_early_leaves_no_thread():
    pieces = staged(torch.ones(8, 2), None, [(0, 4), (4, 8)], torch.device("cpu"))
    next(pieces)
    pieces.close()


def test_memory_of_a_gpu_is_not_given_away_before_the_copy_into_it_is_done(monkeypatch):
    """The allocator waits for streams that a tensor was recorded on, when it is freed."""
    cuda = mock.Mock()
    monkeypatch.setattr(stream.torch, "cuda", cuda)
    monkeypatch.setattr(stream.torch, "empty", mock.Mock(side_effect=lambda *_, **__: mock.Mock()))
    buffer = stream._Buffer(torch.ones(2, 3), 2, torch.device("cuda"))
    buffer.resident.record_stream.assert_called_once_with(cuda.Stream.return_value)


def test_an_error_while_reading_reaches_the_caller():
    with pytest.raises(IndexError):
        list(staged(torch.ones(8, 2), torch.tensor([1, 9]), [(0, 1), (1, 2)], torch.device("cpu")))


def test_chunks_of_some_documents_carry_their_rows_and_ids():
    corpus = torch.arange(20.0).view(10, 2)
    pool = Pool(
        torch.arange(1), corpus[:1], corpus, columns=torch.tensor([1, 4, 8]), corpus_ids=torch.arange(10) * 7
    )
    first, second = chunks(pool, 2 * 2 * 4)
    assert (first.ids.tolist(), second.ids.tolist()) == ([7, 28], [56])
    assert second.vectors.tolist() == [[16, 17]]
    assert first.rows_in_corpus(torch.tensor([1, 0])).tolist() == [4, 1]
    assert (first.first, second.first) == (0, 2)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_lower_precision_of_products_is_not_taken_over(monkeypatch, precision):
    seen = []
    real = torch.mm

    def spy(*arguments, **options):
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return real(*arguments, **options)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        monkeypatch.setattr(torch, "mm", spy)
        nearest_neighbours(torch.ones(2, 4), torch.ones(3, 4), 1)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["ieee"]
