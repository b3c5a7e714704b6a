"""nearest_neighbours against brute force: ties, exclusions, ceilings, groups, tiles, errors."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrofit_kernels import NeighbourOptions, nearest_neighbours
from retrofit_kernels._search import best, with_faiss, with_torch
from retrofit_kernels.reference import reference_nearest_neighbours
from torch.testing import assert_close

IDS = torch.arange(3)


def whole_numbers(rows, seed, largest=2, dimension=3):
    """Vectors of small whole numbers: their scores are exact in every order of summation, with many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, dimension), generator=generator).float()


def check(queries, corpus, k, **options):
    options = NeighbourOptions(**options)
    found = nearest_neighbours(queries, corpus, k, options=options)
    expected = reference_nearest_neighbours(queries, corpus, k, options=options)
    assert (found.scores.dtype, found.indices.dtype) == (torch.float32, torch.int64)
    assert_close(found.indices, expected.indices, rtol=0, atol=0)
    assert_close(found.scores, expected.scores, rtol=0, atol=0)
    return found


@pytest.mark.parametrize("k", [1, 3, 10, 40])
@pytest.mark.parametrize("strip_bytes", [1, 4 * 64 * 7, 1 << 20])
def test_ties_go_to_the_smaller_index_in_every_tiling(k, strip_bytes):
    check(whole_numbers(9, 1), whole_numbers(40, 2), k, strip_bytes=strip_bytes)


def test_all_documents_equal():
    found = check(torch.ones(3, 2), torch.ones(200, 2), 5)
    assert found.indices.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_ties_across_many_tied_rows_and_tiles():
    with (
        mock.patch.object(with_torch, "TILE_COLUMNS", 37),
        mock.patch.object(best, "TIED_ROWS", 5),
    ):
        check(whole_numbers(150, 1, largest=1), whole_numbers(300, 2, largest=1), 20)


def test_exclusions_come_before_the_selection():
    corpus = torch.tensor([[3.0], [2.0], [2.0], [1.0]])
    options = {"query_ids": torch.tensor([[7, -1], [8, 7]]), "corpus_ids": torch.tensor([7, 8, 7, -1])}
    found = check(torch.ones(2, 1), corpus, 2, **options)
    assert found.indices.tolist() == [[1, 3], [3, -1]]
    assert found.scores.tolist() == [[2, 1], [1, -torch.inf]]


def test_ceiling_is_strict_and_comes_before_the_selection():
    corpus = torch.tensor([[3.0], [2.0], [2.0], [1.0]])
    found = check(torch.ones(3, 1), corpus, 2, ceiling=torch.tensor([2.0, 2.5, -1.0]))
    assert found.indices.tolist() == [[3, -1], [1, 2], [-1, -1]]


def test_groups_keep_to_themselves():
    corpus = torch.tensor([[3.0], [2.0], [2.0], [1.0]])
    options = {"query_groups": torch.tensor([5, 6, 9]), "corpus_groups": torch.tensor([6, 5, 6, 5])}
    found = check(torch.ones(3, 1), corpus, 3, **options)
    assert found.indices.tolist() == [[1, 3, -1], [0, 2, -1], [-1, -1, -1]]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_combination(data):
    rows, documents = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 90))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    options = {"strip_bytes": data.draw(st.sampled_from([1, 3000, 1 << 20]))}
    options["backend"] = data.draw(st.sampled_from(["torch", "faiss"]))
    if data.draw(st.booleans()):
        ids, width = data.draw(st.sampled_from([2, 9, 100])), data.draw(st.integers(1, 3))
        options["query_ids"] = torch.randint(-1, ids, (rows, width), generator=generator)
        options["corpus_ids"] = torch.randint(-1, ids, (documents,), generator=generator)
    if data.draw(st.booleans()):
        options["query_groups"] = torch.randint(0, 3, (rows,), generator=generator)
        options["corpus_groups"] = torch.randint(0, 4, (documents,), generator=generator)
    if data.draw(st.booleans()):
        options["ceiling"] = torch.randint(-4, 9, (rows,), generator=generator).float()
    largest = data.draw(st.sampled_from([1, 4]))
    with mock.patch.object(with_torch, "TILE_COLUMNS", data.draw(st.sampled_from([1, 17, 32768]))):
        corpus = whole_numbers(documents, data.draw(st.integers(0, 99)), largest)
        check(whole_numbers(rows, 3, largest), corpus, data.draw(st.integers(1, documents)), **options)


def test_what_faiss_does_not_reach_is_left_to_torch(monkeypatch):
    """On a GPU its search has a largest depth; one query's ceiling leaves only the worst documents."""
    faiss = pytest.importorskip("faiss")
    left = []

    def spy(pool, *arguments, **options):
        left.extend(pool.rows.tolist())
        return search(pool, *arguments, **options)

    search = with_faiss.search_torch
    monkeypatch.setattr(with_faiss, "search_torch", spy)
    monkeypatch.setattr(
        with_faiss, "_new_index", lambda dimension, device: (faiss.IndexFlatIP(dimension), 64)
    )
    corpus = torch.arange(500, 0, -1).float().unsqueeze(1)
    options = {"ceiling": torch.tensor([501, 2.5, 499]), "backend": "faiss"}
    found = check(torch.ones(3, 1), corpus, 3, **options)
    assert found.indices[1].tolist() == [498, 499, -1]
    assert left == [1]


def test_real_scores(embeddings):
    queries, corpus = embeddings(70, 48, 1, torch.float32), embeddings(900, 48, 2, torch.float32)
    with mock.patch.object(with_torch, "TILE_COLUMNS", 128):
        found = nearest_neighbours(queries, corpus, 25)
    scores, indices = (queries.double() @ corpus.double().T).topk(25)
    assert_close(found.indices, indices)
    assert_close(found.scores.double(), scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_and_autocast(embeddings, dtype):
    """Scores of half-precision vectors are fp32, so 16-bit rounding makes no ties."""
    queries, corpus = embeddings(20, 64, 1, torch.float32), embeddings(300, 64, 2, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest_neighbours(queries, corpus, 10)
    scores, indices = (queries.double() @ corpus.double().T).topk(10)
    assert_close(found.indices, indices)
    assert_close(found.scores, scores.float(), rtol=1e-6, atol=1e-6)


def test_memory_mapped_and_non_contiguous_corpus(tmp_path):
    values = whole_numbers(50, 1).numpy()
    values.tofile(tmp_path / "corpus.bin")
    mapped = torch.from_numpy(np.memmap(tmp_path / "corpus.bin", np.float32, "r+", shape=(50, 3)))
    check(whole_numbers(8, 2), mapped, 7)
    check(whole_numbers(8, 2), whole_numbers(100, 1)[::2].flip(1), 7)


def test_no_gradient_is_recorded(embeddings):
    found = nearest_neighbours(embeddings(3, 4, 1).requires_grad_(), embeddings(5, 4, 2), 2)
    assert not found.scores.requires_grad


@pytest.mark.parametrize("broken", ["queries", "corpus"])
def test_nan_is_reported(broken):
    arguments = {"queries": torch.ones(2, 4), "corpus": torch.ones(3, 4)}
    arguments[broken][1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        nearest_neighbours(**arguments, k=1)


@pytest.mark.parametrize(
    ("k", "options", "kind", "message"),
    [
        (4, {}, ValueError, r"k must be from 1 to 3, .* not 4"),
        (0, {}, ValueError, r"k must be from 1 to 3, .* not 0"),
        (1.0, {}, TypeError, r"k must be an integer, not 1.0"),
        (1, {"query_ids": IDS[:2]}, ValueError, r"together, but corpus_ids is None"),
        (1, {"corpus_groups": IDS}, ValueError, r"together, but query_groups is None"),
        (
            1,
            {"query_ids": IDS, "corpus_ids": IDS},
            ValueError,
            r"query_ids must have shape \(2,\) or \(2, any\)",
        ),
        (
            1,
            {"query_groups": IDS[:2], "corpus_groups": IDS[:2]},
            ValueError,
            r"corpus_groups must have shape \(3,\)",
        ),
        (1, {"ceiling": torch.ones(3)}, ValueError, r"ceiling must have shape \(2,\), but has shape \(3,\)"),
        (1, {"ceiling": IDS[:2]}, TypeError, r"ceiling must be fp16"),
        (1, {"strip_bytes": -1}, ValueError, r"strip_bytes must be a positive"),
    ],
)
def test_wrong_option_is_named(k, options, kind, message):
    with pytest.raises(kind, match=message):
        nearest_neighbours(torch.eye(2, 4), torch.eye(3, 4), k, options=NeighbourOptions(**options))


def test_wrong_embeddings_are_named():
    with pytest.raises(
        ValueError, match=r"queries and corpus must have the same dimension.*\(2, 4\) and \(3, 5\)"
    ):
        nearest_neighbours(torch.eye(2, 4), torch.eye(3, 5), 1)
    with pytest.raises(TypeError, match=r"corpus must be fp16"):
        nearest_neighbours(torch.eye(2, 4), torch.eye(3, 4).int(), 1)
