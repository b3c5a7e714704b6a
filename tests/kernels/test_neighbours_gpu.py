"""nearest_neighbours on a GPU, where there is one: against torch's search in fp32 on the CPU."""

from __future__ import annotations

import pytest
import torch
from retrofit_kernels import NeighbourOptions, nearest_neighbours
from retrofit_kernels._shared.backend import takes_triton

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DOCUMENTS = 150_000


@pytest.fixture
def triton_gpu():
    device = torch.device("cuda")
    if not takes_triton(torch.empty(0, device=device)):
        pytest.skip("Triton does not support this GPU")
    return device


def options_on(device, queries, corpus, **options):
    """The queries' own document and those that score above its 20th are left out."""
    scores = queries.float() @ corpus[:2000].float().T
    return NeighbourOptions(
        query_ids=torch.arange(len(queries), device=device),
        corpus_ids=torch.arange(len(corpus), device=device),
        ceiling=scores.topk(20).values[:, -1].to(device) + 1e-6,
        **options,
    )


@pytest.mark.parametrize("corpus_device", ["cuda", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_exact_search(embeddings, triton_gpu, backend, dtype, corpus_device):
    queries, corpus = embeddings(700, 384, 1, dtype), embeddings(DOCUMENTS, 384, 2, dtype)
    options = options_on(triton_gpu, queries, corpus, backend=backend, strip_bytes=64 << 20)
    found = nearest_neighbours(queries.to(triton_gpu), corpus.to(corpus_device), 100, options=options)
    expected = nearest_neighbours(queries, corpus, 100, options=options_on("cpu", queries, corpus))
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=0, atol=2e-6)
    same = (found.indices.cpu() == expected.indices).float().mean()
    assert same > 0.999  # neighbours in rank whose scores fp32 can hardly tell may change places


def test_adversarial_data_on_a_gpu(triton_gpu):
    """Whole numbers, whose scores are exact: thousands of ties, the best documents in one slot."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(-2, 3, (200, 96), generator=generator).half()
    corpus = torch.randint(-2, 3, (60_000, 96), generator=generator).half()
    corpus[5::6400] = queries[0]
    corpus[1000:3000] = queries[1]
    found = nearest_neighbours(queries.to(triton_gpu), corpus.to(triton_gpu), 50)
    expected = nearest_neighbours(queries, corpus, 50)
    torch.testing.assert_close(found.indices.cpu(), expected.indices, rtol=0, atol=0)


def test_expected_recall_on_a_gpu(embeddings, triton_gpu):
    queries = embeddings(700, 384, 1, torch.float16).to(triton_gpu)
    corpus = embeddings(DOCUMENTS, 384, 2, torch.float16).to(triton_gpu)
    exact = nearest_neighbours(queries, corpus, 100).indices
    options = NeighbourOptions(mode="approximate")
    found = nearest_neighbours(queries, corpus, 100, options=options)
    hits = (exact.unsqueeze(2) == found.indices.unsqueeze(1)).any(2).float().mean(1)
    assert abs(float(hits.mean()) - found.recall) < 5 * float(hits.std()) / 700**0.5
