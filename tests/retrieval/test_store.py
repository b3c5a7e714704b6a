"""Rows on disk: found by text, whole after a kill, of one model alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.fingerprint import fingerprint
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval import store as module
from lit_retrofit.retrieval.store import EmbeddingKey, EmbeddingStore, digests_of

KEY = EmbeddingKey("weights", "document", "passage: ", "mean", True, 24, "float32", 4)


def rows(*numbers: int) -> np.ndarray:
    """The vector of the text named by a number: that number, four times."""
    return np.repeat(np.array(numbers, np.float32)[:, None], 4, axis=1)


def texts(*numbers: int):
    return digests_of([f"text {number}" for number in numbers])


def test_rows_are_given_back_in_any_order(tmp_path):
    store = EmbeddingStore(tmp_path, KEY)
    store.append(texts(5, 6), rows(5, 6))
    EmbeddingStore(tmp_path, KEY).append(texts(7), rows(7))
    assert len(store) == 3
    assert np.array_equal(store.keys(), texts(5, 6, 7)) and np.array_equal(store.keys(2), texts(7))
    for wanted in ([0, 1, 2], [1, 2], [2, 0], [1, 1], []):
        found = store.vectors(np.array(wanted, np.int64))
        assert found.dtype == torch.float32 and found.shape == (len(wanted), 4)
        assert found.tolist() == rows(*(5 + row for row in wanted)).tolist()


def test_rows_are_mapped_and_not_read(tmp_path):
    store = EmbeddingStore(tmp_path, KEY)
    store.append(texts(*range(9)), rows(*range(9)))
    mapped = store.vectors(np.arange(2, 8))
    with (store.folder / "vectors.bin").open("r+b") as file:
        file.seek(3 * 16)
        file.write(rows(100).tobytes())
    assert mapped[1].tolist() == [100] * 4


def test_more_rows_than_are_copied_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_retrofit.retrieval.store.COPIED_ROWS", 3)
    store = EmbeddingStore(tmp_path, KEY)
    store.append(texts(*range(10)), rows(*range(10)))
    assert store.vectors(np.arange(10)[::-1]).tolist() == rows(*range(10))[::-1].tolist()
    assert sorted(path.name for path in store.folder.iterdir() if path.is_file()) == [
        "append.lock", "key.json", "keys.bin", "vectors.bin",
    ]  # fmt: skip


@pytest.mark.parametrize("torn", ["keys.bin", "vectors.bin"])
@pytest.mark.parametrize("lost", [1, 15])
def test_a_row_that_was_cut_off_does_not_count_and_is_written_over(tmp_path, torn, lost):
    store = EmbeddingStore(tmp_path, KEY)
    store.append(texts(1, 2, 3), rows(1, 2, 3))
    with (store.folder / torn).open("r+b") as file:
        file.truncate(3 * 16 - lost)
    assert len(store) == 2 and np.array_equal(store.keys(), texts(1, 2))
    store.append(texts(4), rows(4))
    assert np.array_equal(store.keys(), texts(1, 2, 4))
    assert store.vectors(np.arange(3)).tolist() == rows(1, 2, 4).tolist()


def test_a_key_without_its_vector_never_gets_another_one(tmp_path, monkeypatch):
    """A power failure loses vectors; then a process is killed between its vectors and their keys."""
    store = EmbeddingStore(tmp_path, KEY)
    store.append(texts(1, 2, 3), rows(1, 2, 3))
    with (store.folder / "vectors.bin").open("r+b") as file:
        file.truncate(16)
    write = module._write_at

    def killed(path, offset, content):
        if path.name == "keys.bin":
            raise KeyboardInterrupt
        write(path, offset, content)

    monkeypatch.setattr(module, "_write_at", killed)
    with pytest.raises(KeyboardInterrupt):
        store.append(texts(4, 5), rows(4, 5))
    assert np.array_equal(EmbeddingStore(tmp_path, KEY).keys(), texts(1))


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"}, {"role": "query"}, {"prompt": ""}, {"pooling": "cls"}, {"normalise": False},
        {"max_length": 25}, {"precision": "bfloat16"}, {"dimension": 3},
    ],
)  # fmt: skip
def test_what_was_embedded_otherwise_is_not_seen(tmp_path, other):
    EmbeddingStore(tmp_path, KEY).append(texts(1), rows(1))
    assert len(EmbeddingStore(tmp_path, replace(KEY, **other))) == 0


def test_a_folder_of_another_model_is_refused(tmp_path):
    """As a copy of files by hand would make it."""
    other = EmbeddingStore(tmp_path, replace(KEY, model="other"))
    other.append(texts(1), rows(1))
    shutil.copytree(other.folder, tmp_path / KEY.folder)
    with pytest.raises(UserError, match="another model's") as caught:
        EmbeddingStore(tmp_path, KEY)
    assert "\n" not in str(caught.value)
    (tmp_path / KEY.folder / "key.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        EmbeddingStore(tmp_path, KEY)


def test_a_claim_is_of_one_holder_and_leaves_nothing(tmp_path):
    store, other = EmbeddingStore(tmp_path, KEY), EmbeddingStore(tmp_path, KEY)
    with store.claim("a") as first, other.claim("a") as second, other.claim("b") as third:
        assert (first, second, third) == (True, False, True)
    with other.claim("a") as again:
        assert again
    assert list((store.folder / "claims").iterdir()) == []


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path, KEY)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    store.check_space(10**9 // 32)
    with pytest.raises(UserError, match=r"need 3\.2 GB of disk and 1\.0 GB are free"):
        store.check_space(10**8)


def test_a_cache_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no embeddings can be kept here"):
        EmbeddingStore(tmp_path / "file", KEY)


def test_vectors_of_the_wrong_shape_or_type_are_refused(tmp_path):
    store = EmbeddingStore(tmp_path, KEY)
    for vectors in (rows(1, 2), rows(1)[:, :3], rows(1).astype(np.float64)):
        with pytest.raises(ValueError, match="vectors"):
            store.append(texts(1), vectors)
    assert len(store) == 0


def test_the_fingerprint_is_of_what_computes_and_not_of_its_name(bert_folder, xlmr_folder, tmp_path):
    copy = shutil.copytree(bert_folder, tmp_path / "copy")
    first, second = (build_encoder(EncoderOptions(str(folder))) for folder in (bert_folder, copy))
    before = fingerprint(first)
    second.tokenizer(["a", "b c"], "query")  # which sets the truncation of its backend
    assert fingerprint(second) == before
    assert fingerprint(build_encoder(EncoderOptions(str(copy), dropout=0.0))) == before
    assert fingerprint(build_encoder(EncoderOptions(str(xlmr_folder)))) != before
    assert fingerprint(build_encoder(EncoderOptions(str(copy), lora=LoraOptions(r=2)))) != before
    with torch.no_grad():
        next(second.backbone.parameters())[3, 2] += 1e-4
    assert fingerprint(second) != before
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert fingerprint(build_encoder(EncoderOptions(str(copy)))) != before


def test_the_key_has_what_the_encoder_does(bert_folder):
    encoder = build_encoder(EncoderOptions(str(bert_folder), query_prompt="ask: ", query_max_length=9))
    key = EmbeddingKey.of(encoder, "query", "bf16")
    assert (key.role, key.prompt, key.pooling, key.max_length) == ("query", "ask: ", "mean", 9)
    assert (key.precision, key.dimension, key.normalise) == ("bfloat16", 32, True)
    assert EmbeddingKey.of(encoder, "document", "fp32").prompt == "passage: "
