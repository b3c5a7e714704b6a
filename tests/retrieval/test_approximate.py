"""Indexes against the exact search."""

from __future__ import annotations

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.retrieval import approximate
from lit_retrofit.retrieval.approximate import (
    ApproximateIndex,
    bytes_needed,
    choose_index,
    code_bytes,
    sample,
)
from lit_retrofit.retrieval.search import search

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    """Clusters, as texts have them; queries near some of them."""
    numbers = torch.Generator().manual_seed(0)
    centres = torch.randn(60, 32, generator=numbers)
    corpus = centres[torch.arange(12_000) % 60] + 0.6 * torch.randn(12_000, 32, generator=numbers)
    queries = centres[torch.arange(400) % 60] + 0.6 * torch.randn(400, 32, generator=numbers)
    return torch.nn.functional.normalize(queries, dim=1), torch.nn.functional.normalize(corpus, dim=1)


@pytest.fixture(scope="module")
def indexes(data):
    return {name: ApproximateIndex(data[1], name, device=CPU) for name in ("ivf", "ivfpq")}


@pytest.mark.parametrize("name", ["ivf", "ivfpq"])
def test_the_recall_told_is_the_share_found(data, indexes, name):
    queries, corpus = data
    part = sample(len(queries))
    measured = search(queries[part], corpus, 10).indices
    told = indexes[name].tune(lambda: indexes[name].search(queries[part], 10), measured)
    exact = search(queries, corpus, 10).indices.tolist()
    found = indexes[name].search(queries, 10).tolist()
    share = sum(len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)) / 4000
    assert told == pytest.approx(share, abs=0.05)  # the sample is a part of the queries
    assert told >= (0.95 if name == "ivf" else 0.5)
    assert indexes[name].probes < indexes[name].lists


def test_looking_everywhere_finds_everything(data, monkeypatch):
    queries, corpus = data
    monkeypatch.setattr(approximate, "TARGET", 1.1)
    index = ApproximateIndex(corpus, "ivf", device=CPU)
    exact = search(queries[:50], corpus, 20).indices
    assert index.tune(lambda: index.search(queries[:50], 20), exact) == 1.0 and index.probes == index.lists
    assert torch.equal(index.search(queries, 20), search(queries, corpus, 20).indices)


def test_only_what_is_allowed_is_found(data, indexes):
    queries, corpus = data
    allowed = torch.arange(len(corpus)) % 7 == 3
    found = indexes["ivf"].search(queries, 15, allowed.numpy())
    assert (found >= 0).any(dim=1).all() and allowed[found[found >= 0]].all()
    nothing = indexes["ivf"].search(queries, 15, torch.zeros(len(corpus), dtype=torch.bool).numpy())
    assert (nothing == -1).all()


def test_rows_that_no_search_can_find_do_not_count(indexes):
    exact = torch.tensor([[3, 4, -1, -1], [5, -1, -1, -1], [-1, -1, -1, -1]])
    found = torch.tensor([[4, 9, -1, -1], [5, -1, -1, -1], [-1, -1, -1, -1]])
    assert indexes["ivf"].tune(lambda: found, exact) == pytest.approx(2 / 3)
    assert indexes["ivf"].tune(lambda: found[2:], exact[2:]) == 1.0


def test_auto_is_exact_until_it_is_large():
    assert choose_index("auto", 4_999_999) == "exact"
    assert choose_index("auto", 5_000_000) == "ivfpq"
    assert choose_index("ivf", 3) == "ivf"


def test_codes_divide_the_dimension():
    for dimension in (1, 7, 32, 384, 768, 1000, 1021):
        assert dimension % code_bytes(dimension) == 0 and code_bytes(dimension) <= max(1, dimension // 4)
    assert code_bytes(384) == 96


def test_an_index_that_does_not_fit_is_told_with_what_it_needs(data, monkeypatch):
    corpus = torch.empty(1, 384).expand(10_000_000, 384)  # a view: it takes no memory
    assert bytes_needed("ivf", 10**7, 384, 12_649) == 10**7 * 1544 + (12_649 + 64 * 12_649) * 1536
    for free, advice in (
        (8e9, r"needs 16\.7 GB of memory and 8\.0 GB are free; use ivfpq \(2\.3 GB\) or index exact"),
        (1e9, r"needs 16\.7 GB of memory and 1\.0 GB are free; use index exact"),
    ):
        monkeypatch.setattr(approximate, "free_memory", lambda device, free=free: int(free))
        with pytest.raises(UserError, match=advice) as caught:
            ApproximateIndex(corpus, "ivf", device=CPU)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="needs 9984 documents"):
        ApproximateIndex(data[1][:500], "ivfpq", device=CPU)
