"""Texts to vectors outside of training."""

from __future__ import annotations

import pytest
import torch

from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.retrieval import embed as module
from lit_retrofit.retrieval.embed import embed_texts

TEXTS = ["word", "the page of the text 12", "a", "word", "x y z", "", "a"]


@pytest.fixture
def encoder(bert_folder):
    return build_encoder(EncoderOptions(str(bert_folder)))


@torch.no_grad()
def expected(encoder, texts: list[str], role: str) -> torch.Tensor:
    """One text at a time, the prompt put there by hand."""
    training = encoder.training
    encoder.eval()
    rows = []
    for text in texts:
        prompt = {"query": "query: ", "document": "passage: "}[role]
        limit = {"query": 16, "document": 24}[role]
        ids = torch.tensor(
            [encoder.tokenizer.backend(prompt + text, truncation=True, max_length=limit)["input_ids"]]
        )
        hidden = encoder.backbone(ids, torch.ones_like(ids)).last_hidden_state.mean(1)
        rows.append(torch.nn.functional.normalize(hidden, dim=1))
    encoder.train(training)
    return torch.cat(rows)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize(("budget", "chunk"), [(1, 16384), (40, 16384), (10**6, 16384), (40, 2), (40, 3)])
def test_a_row_per_text_in_order(encoder, monkeypatch, role: str, budget: int, chunk: int) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    texts = [*TEXTS, "word " * 50]
    found = embed_texts(encoder, texts, role, token_budget=budget)
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)
    assert (found - expected(encoder, texts, role)).abs().max() < 1e-5


def test_each_text_once(encoder, monkeypatch) -> None:
    seen = []
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda ids, mask: seen.extend(ids.tolist()) or forward(ids, mask))
    found = embed_texts(encoder, TEXTS, "query")
    assert len(seen) == len(set(TEXTS)) == 5
    assert torch.equal(found[0], found[3]) and torch.equal(found[2], found[6])


@pytest.mark.parametrize("training", [True, False])
def test_without_dropout_and_the_mode_restored(encoder, training: bool) -> None:
    encoder.train(training)
    assert torch.equal(embed_texts(encoder, TEXTS, "query"), embed_texts(encoder, TEXTS, "query"))
    assert {part.training for part in encoder.modules()} == {training}


def test_the_mode_is_restored_after_an_error(encoder, monkeypatch) -> None:
    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "forward", fail)
    with pytest.raises(KeyboardInterrupt):
        embed_texts(encoder, TEXTS, "query")
    assert encoder.training


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_and_not_the_same(encoder, precision: str) -> None:
    single = embed_texts(encoder, TEXTS, "query")
    half = embed_texts(encoder, TEXTS, "query", precision=precision)
    assert half.dtype == torch.float32
    assert not torch.equal(half, single)
    assert torch.cosine_similarity(half, single).min() > 0.99
    assert torch.allclose(half.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6)


def test_no_texts(encoder) -> None:
    assert embed_texts(encoder, [], "query").shape == (0, 32)
