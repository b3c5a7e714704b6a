"""Texts of any size, cut to what is read of them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.tokenizer import CHARACTERS_PER_TOKEN


@pytest.fixture(scope="module")
def tokenizer(bert_folder):
    return build_encoder(EncoderOptions(str(bert_folder))).tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "the page " * 1000,
        " " * (CHARACTERS_PER_TOKEN * 24) + "text after much white space",
        "\u200b" * 3000 + "word",
        "a" * 5000,
        "word " * 3 + "x" * 4000 + " page 1 2 3",
    ],
)
def test_a_long_text_has_the_tokens_of_the_whole(tokenizer, text):
    assert len(text) > CHARACTERS_PER_TOKEN * 16
    whole = tokenizer.backend("query: " + text, truncation=True, max_length=16)["input_ids"]
    assert tokenizer(["word", text], "query")[1] == whole


def test_texts_go_to_the_tokenizer_some_at_a_time(tokenizer, monkeypatch):
    texts = [f"page {number}" for number in range(7)]
    asked = []

    def encode(part: list[str], **options):
        asked.append(len(part))
        return tokenizer.backend(part, **options)

    monkeypatch.setattr("lit_retrofit.model.tokenizer._TEXTS_AT_ONCE", 3)
    assert (
        replace(tokenizer, backend=encode)(texts, "query")
        == tokenizer.backend(["query: " + text for text in texts])["input_ids"]
    )
    assert asked == [3, 3, 1]


@pytest.mark.alone
def test_a_text_of_ten_megabytes_is_not_read_to_its_end(tokenizer):
    text = "some words of a text, 1234. " * 360_000
    started = time.perf_counter()
    assert len(tokenizer([text], "document")[0]) == 24
    assert time.perf_counter() - started < 0.5
