"""Equal documents score equally in every tile, so that the smaller row of the corpus comes first."""

from __future__ import annotations

import pytest
import torch
from retrofit_kernels import NeighbourOptions, nearest_neighbours


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def check(queries, kinds, copies, k, **options):
    """Search a corpus of copies of a few vectors; by fp64 scores, and the row where they are equal."""
    options = NeighbourOptions(backend="torch", **options)
    found = nearest_neighbours(queries, kinds[copies], k, options=options).indices
    scores = (queries.double() @ kinds.double().T)[:, copies]
    assert torch.equal(found, scores.sort(dim=1, descending=True, stable=True).indices[:, :k])


@pytest.mark.parametrize("rows", [1, 2, 17, 40])
@pytest.mark.parametrize(
    ("documents", "dimension"),
    [(33, 384), (65, 768), (97, 1024), (129, 64), (4097, 384), (4099, 33), (4100, 1024), (5000, 768)],
)
def test_copies_come_in_the_order_of_their_rows(embeddings, threads, rows, documents, dimension):
    """Widths with remainders of 1 to 31 columns, a last tile far narrower than the first, single rows."""
    copies = torch.randint(0, 3, (documents,), generator=torch.Generator().manual_seed(documents))
    queries, kinds = embeddings(rows, dimension, 1, torch.float32), embeddings(3, dimension, 2, torch.float32)
    check(queries, kinds, copies, min(documents, 1500))


@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("strip_bytes", [1 << 16, 1 << 18])
def test_so_they_do_in_low_strips_and_narrow_tiles(embeddings, rows, strip_bytes):
    """The last strip has a single row."""
    copies = torch.randint(0, 3, (3001,), generator=torch.Generator().manual_seed(1))
    queries, kinds = embeddings(rows, 384, 1, torch.float32), embeddings(3, 384, 2, torch.float32)
    check(queries, kinds, copies, 1500, strip_bytes=strip_bytes)


def test_a_copy_in_the_last_row_never_replaces_the_first(embeddings):
    """4097 documents: the last was a product of its own."""
    corpus = embeddings(4097, 384, 1, torch.float32)
    for row in range(10):
        corpus[-1] = corpus[row]
        queries = corpus[row] + 0.1 * embeddings(50, 384, row + 2, torch.float32)
        found = nearest_neighbours(queries, corpus, 1, options=NeighbourOptions(backend="torch"))
        assert (found.indices == row).all()


@pytest.mark.parametrize("mode", ["exact", "approximate"])
def test_what_fills_a_narrow_product_up_is_never_found(mode):
    """Zeros would beat every document of a negative score."""
    corpus = -torch.arange(1.0, 5097).unsqueeze(1)
    options = NeighbourOptions(
        backend="torch",
        mode=mode,
        query_groups=torch.zeros(1).long(),
        corpus_groups=torch.zeros(5096).long(),
    )
    found = nearest_neighbours(torch.ones(1, 1), corpus, 4, options=options)
    assert found.indices.tolist() == [[0, 1, 2, 3]]
    assert found.scores.tolist() == [[-1, -2, -3, -4]]
