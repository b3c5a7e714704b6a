import sys
from dataclasses import replace

import pytest
import torch
from retrofit_kernels import NeighbourOptions

from lit_retrofit.errors import UserError
from lit_retrofit.retrieval.search import search

BACKENDS = ["torch", pytest.param("faiss", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"))]
NONE = NeighbourOptions()


def whole_numbers(rows, seed, size=3):
    """Small whole numbers: products are exact in float32, and ties are many."""
    return torch.randint(-size, size + 1, (rows, 4), generator=torch.Generator().manual_seed(seed)).float()


def oracle(queries, corpus, k, options):
    """One pair at a time, in plain Python."""
    rows = []
    for row, query in enumerate(queries.tolist()):
        found = []
        for column, document in enumerate(corpus.tolist()):
            score = sum(x * y for x, y in zip(query, document, strict=True))
            excluded = set()
            if options.query_ids is not None:
                excluded = set(options.query_ids[row].reshape(-1).tolist()) - {-1}
            if options.query_ids is not None and int(options.corpus_ids[column]) in excluded:
                continue
            if options.ceiling is not None and not score < float(options.ceiling[row]):
                continue
            if (
                options.query_groups is not None
                and options.query_groups[row] != options.corpus_groups[column]
            ):
                continue
            found.append((-score, column))
        found = [(-score, column) for score, column in sorted(found)[:k]]
        rows.append(found + [(-torch.inf, -1)] * (k - len(found)))
    return rows


def pairs(neighbours):
    return [
        list(zip(*row, strict=True))
        for row in zip(neighbours.scores.tolist(), neighbours.indices.tolist(), strict=True)
    ]


QUERIES, CORPUS = whole_numbers(23, seed=0), whole_numbers(157, seed=1)
IDS = torch.arange(len(CORPUS)) // 2 - 1  # id -1 is no exclusion: it pads
OPTIONS = {
    "none": NONE,
    "own id": NeighbourOptions(query_ids=torch.arange(23), corpus_ids=IDS),
    "many ids": NeighbourOptions(query_ids=torch.arange(23 * 40).reshape(23, 40) % 90 - 1, corpus_ids=IDS),
    "ceiling": NeighbourOptions(ceiling=torch.arange(23).float() - 12),
    "groups": NeighbourOptions(query_groups=torch.arange(23) % 5, corpus_groups=torch.arange(157) % 7),
}
OPTIONS["all"] = replace(
    OPTIONS["many ids"],
    ceiling=torch.arange(23).float() - 6,
    query_groups=OPTIONS["groups"].query_groups,
    corpus_groups=OPTIONS["groups"].corpus_groups,
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 10, 157])
@pytest.mark.parametrize("name", OPTIONS)
def test_both_backends_find_what_a_loop_finds(backend, k, name):
    found = search(QUERIES, CORPUS, k, options=OPTIONS[name], backend=backend)
    assert pairs(found) == oracle(QUERIES, CORPUS, k, OPTIONS[name])
    assert (found.scores.dtype, found.indices.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_deeper_than_k_go_to_the_smaller_index(backend):
    """300 equal documents: an index may return any of them, the answer is the first ones."""
    corpus = torch.ones(300, 4)
    found = search(torch.ones(2, 4), corpus, 3, options=NONE, backend=backend)
    assert found.indices.tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_searches_as_deep_as_it_must(backend):
    """Only the two worst documents may be found."""
    corpus = torch.arange(5000, 0, -1).float().unsqueeze(1)
    options = NeighbourOptions(ceiling=torch.tensor([2.5, 5000.5]))
    found = search(torch.ones(2, 1), corpus, 3, options=options, backend=backend)
    assert found.indices.tolist() == [[4998, 4999, -1], [0, 1, 2]]
    assert found.scores.tolist() == [[2, 1, -torch.inf], [5000, 4999, 4998]]


def test_embeddings_give_the_same_neighbours_in_both_backends():
    generator = torch.Generator().manual_seed(2)
    queries, corpus = (
        torch.nn.functional.normalize(torch.randn(rows, 96, generator=generator), dim=1)
        for rows in (40, 2000)
    )
    options = NeighbourOptions(
        query_ids=torch.arange(40), corpus_ids=torch.arange(2000), ceiling=torch.full((40,), 0.3)
    )
    by_torch, by_faiss = (
        search(queries, corpus, 50, options=options, backend=name) for name in ("torch", "faiss")
    )
    assert by_torch.indices.tolist() == by_faiss.indices.tolist()
    torch.testing.assert_close(by_torch.scores, by_faiss.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [0, 158])
def test_k_is_between_one_and_the_corpus(backend, k):
    with pytest.raises(ValueError, match="k"):
        search(QUERIES, CORPUS, k, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("broken", ["queries", "corpus"])
def test_values_that_are_no_numbers_are_refused(backend, broken):
    """faiss alone would answer NaN with the id -1, which indexes the last document."""
    tensors = {"queries": QUERIES.clone(), "corpus": CORPUS.clone()}
    tensors[broken][-1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        search(**tensors, k=3, backend=backend)


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="pip install faiss-cpu"):
        search(QUERIES, CORPUS, 1, backend="faiss")
