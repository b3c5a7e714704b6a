"""Embedding through a store: once for each text, whatever was killed and whoever works beside."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest
import torch

from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval import cached
from lit_retrofit.retrieval.cached import embed_cached
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.retrieval.store import EmbeddingKey, EmbeddingStore

TEXTS = [f"the page {number} of text {number % 7}" for number in range(60)]


@pytest.fixture
def encoder(bert_folder):
    return build_encoder(EncoderOptions(str(bert_folder)))


@pytest.fixture
def embedded(monkeypatch):
    """Collects the texts that are embedded and not taken from a store."""
    seen: list[str] = []

    def spy(encoder, texts, role, **options):
        seen.extend(texts)
        return embed_texts(encoder, texts, role, **options)

    monkeypatch.setattr(cached, "embed_texts", spy)
    return seen


def test_the_same_embeddings_in_the_order_of_the_texts(encoder, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(cached, "CHUNK", 7)
    plain = embed_texts(encoder, TEXTS, "document")
    found = embed_cached(encoder, TEXTS, "document", cache=tmp_path)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)
    assert embedded == TEXTS
    for texts in (TEXTS[::-1], TEXTS + TEXTS[3:5], [TEXTS[8], "a new one"]):
        found = embed_cached(encoder, texts, "document", cache=tmp_path)
        torch.testing.assert_close(found, embed_texts(encoder, texts, "document"), rtol=0, atol=1e-6)
    assert embedded == [*TEXTS, "a new one"]
    assert embed_cached(encoder, [], "document", cache=tmp_path).shape == (0, 32)


def test_another_model_prompt_or_role_does_not_read_it(encoder, embedded, tmp_path, bert_folder):
    embed_cached(encoder, TEXTS, "document", cache=tmp_path)
    with torch.no_grad():
        next(encoder.backbone.parameters()).mul_(1.1)
    prompted = build_encoder(EncoderOptions(str(bert_folder), document_prompt="doc: "))
    for other, role in ((encoder, "document"), (prompted, "document"), (prompted, "query")):
        embedded.clear()
        found = embed_cached(other, TEXTS, role, cache=tmp_path)
        assert embedded == TEXTS
        torch.testing.assert_close(found, embed_texts(other, TEXTS, role), rtol=0, atol=1e-6)


def test_what_another_process_claims_is_left_to_it(encoder, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(cached, "CHUNK", 20)
    monkeypatch.setattr(cached, "POLL_SECONDS", 0.01)
    store = EmbeddingStore(tmp_path, EmbeddingKey.of(encoder, "document", "fp32"))
    plain = embed_texts(encoder, TEXTS, "document")
    digests = cached.digests_of(TEXTS)
    taken = threading.Event()

    def other() -> None:
        with store.claim(digests[20].hex()):
            taken.set()
            while len(store) < 40:  # until the others are done
                time.sleep(0.01)
            store.append(digests[20:40], plain[20:40].numpy())

    beside = threading.Thread(target=other)
    beside.start()
    taken.wait()
    found = embed_cached(encoder, TEXTS, "document", cache=tmp_path)
    beside.join()
    assert embedded == TEXTS[:20] + TEXTS[40:]
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


def _run(folder, cache, start, embedded):
    """A process of its own, in chunks of four texts."""
    cached.CHUNK = 4
    encoder = build_encoder(EncoderOptions(str(folder)))
    start.wait()

    def spy(encoder, texts, role, **options):
        for text in texts:
            embedded.put(text)
        time.sleep(0.05)  # long enough that the processes meet
        return embed_texts(encoder, texts, role, **options)

    cached.embed_texts = spy
    embed_cached(encoder, TEXTS, "document", cache=cache)


@pytest.mark.slow
def test_two_processes_on_one_cache_share_the_work(encoder, bert_folder, tmp_path):
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        start, embedded = manager.Barrier(2), manager.Queue()
        arguments = (bert_folder, tmp_path, start, embedded)
        started = [context.Process(target=_run, args=arguments) for _ in range(2)]
        for process in started:
            process.start()
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [0, 0]
        seen = [embedded.get(timeout=5) for _ in range(embedded.qsize())]
    assert sorted(seen) == sorted(TEXTS)  # each once
    found = embed_cached(encoder, TEXTS, "document", cache=tmp_path)
    torch.testing.assert_close(found, embed_texts(encoder, TEXTS, "document"), rtol=0, atol=1e-6)


def test_of_two_encoders_each_role_has_its_own_embeddings(
    two_encoders_run, bert_folder, xlmr_folder, tmp_path
):
    """The same as those of each model alone: what it has embedded is not embedded again."""
    both = load_encoder(str(two_encoders_run))
    for role, folder in (("query", bert_folder), ("document", xlmr_folder)):
        alone = load_encoder(str(folder))
        found = embed_cached(both, TEXTS, role, cache=tmp_path)
        torch.testing.assert_close(found, embed_texts(alone, TEXTS, role))
        assert EmbeddingKey.of(both, role, "fp32") == EmbeddingKey.of(alone, role, "fp32")
