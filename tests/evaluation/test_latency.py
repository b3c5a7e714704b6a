from types import SimpleNamespace

import pytest
import torch

from lit_retrofit.evaluation import latency
from lit_retrofit.evaluation.latency import measure_latency


def test_percentiles_of_queries_that_differ_after_three_that_do_not_count(monkeypatch):
    """By a clock: query number n takes n ms to embed and 10 n to search, the first three a second each."""
    steps = [(1000, 1000)] * 3 + [(n, 10 * n) for n in range(1, 6)]
    moments, now = [], 0.0
    for embedding, searching in steps:
        moments += [now, now + embedding / 1000, now + (embedding + searching) / 1000]
        now = moments[-1] + 7
    monkeypatch.setattr(latency, "_now", lambda encoder: moments.pop(0))
    monkeypatch.setattr(latency, "embed_texts", lambda encoder, texts, role, precision: torch.ones(1, 4))
    encoder = SimpleNamespace(device=torch.device("cpu"))
    found = measure_latency(encoder, [*"abcde", "a"], torch.eye(4), "fp32")
    assert found == {
        "queries": 5,
        "documents": 4,
        "embed_ms_p50": pytest.approx(3),
        "embed_ms_p95": pytest.approx(4.8),
        "search_ms_p50": pytest.approx(30),
        "search_ms_p95": pytest.approx(48),
    }
    assert moments == []


def test_a_corpus_is_put_on_the_device_only_where_it_fits(monkeypatch):
    """``meta`` stands for a GPU: nothing is computed here."""
    corpus, device = torch.ones(10, 4), torch.device("meta")
    for free, place in ((320, "meta"), (319, "cpu")):
        monkeypatch.setattr(latency, "free_memory", lambda device, free=free: free)
        assert latency._placed(corpus, device).device.type == place
