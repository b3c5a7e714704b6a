"""Embedding in several processes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.retrieval import cached, workers
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.retrieval.store import EmbeddingKey, EmbeddingStore
from lit_retrofit.retrieval.workers import check_processes, embed_in_processes

TEXTS = [f"the page {number} of text {number % 7}" for number in range(60)]


@pytest.mark.slow
def test_another_process_does_a_part_and_ends(bert_folder, tmp_path, monkeypatch):
    encoder = build_encoder(EncoderOptions(str(bert_folder)))
    store = EmbeddingStore(tmp_path, EmbeddingKey.of(encoder, "document", "fp32"))
    texts = [f"{number}" for number in range(3 * workers.CHUNK)]
    plain = embed_texts(encoder, texts, "document")
    own: list[str] = []
    until = time.monotonic() + 60

    def waiting(encoder, texts, role, **options):
        """After a piece of its own, this process waits for the other one."""
        while own and len(store) <= len(own) and time.monotonic() < until:
            time.sleep(0.05)
        own.extend(texts)
        return embed_texts(encoder, texts, role, **options)

    monkeypatch.setattr(cached, "embed_texts", waiting)
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 2)
    threads = torch.get_num_threads()
    found = embed_in_processes(encoder, texts, "document", cache=tmp_path, processes=2)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)
    assert 0 < len(own) < len(texts) == len(store)
    assert torch.get_num_threads() == threads and not torch.multiprocessing.active_children()


def test_few_texts_start_no_further_process(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(workers.mp, "spawn", lambda *arguments, **options: pytest.fail("started one"))
    encoder = build_encoder(EncoderOptions(str(bert_folder)))
    assert embed_in_processes(encoder, TEXTS, "document", cache=tmp_path, processes=4).shape == (60, 32)


def test_there_is_a_device_for_each_process(monkeypatch):
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(workers.torch, "cuda", SimpleNamespace(device_count=lambda: 3))
    check_processes(2, torch.device("cpu"))
    check_processes(3, torch.device("cuda"))
    for device, most in (("cpu", "2, the number of CPU cores"), ("cuda", "3, the number of GPUs")):
        for number in (0, 4):
            with pytest.raises(UserError, match=f"processes is {number}; give 1 to {most}"):
                check_processes(number, torch.device(device))
