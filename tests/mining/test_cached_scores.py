"""A cross-encoder's scores on disk: whole after a stop, the same to the bit, of one model alone."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_retrofit.errors import UserError
from lit_retrofit.mining import cached_scores
from lit_retrofit.mining.cached_scores import CachedCrossEncoder, score_key
from lit_retrofit.model.cross_encoder import CrossEncoder
from lit_retrofit.retrieval.store import EmbeddingStore

CPU = torch.device("cpu")
BLOCK = 10
PAIRS = [(f"what page {i // 5}", f"the page {i} tells {'a text ' * (i * 7 % 11)}") for i in range(47)]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(cached_scores, "PAIR_BLOCK", BLOCK)


def load(folder, **options) -> CrossEncoder:
    return CrossEncoder(str(folder), device=CPU, **{"precision": "fp32", "token_budget": 256} | options)


def by_hand(model: CrossEncoder, pairs=PAIRS) -> torch.Tensor:
    """Block by block, without a store."""
    return torch.cat([model.scores(pairs[start : start + BLOCK]) for start in range(0, len(pairs), BLOCK)])


def stop_at(model: CrossEncoder, call: int) -> CrossEncoder:
    """The model, interrupted at its n-th call."""
    plain, calls = model.scores, []

    def scores(pairs):
        calls.append(len(pairs))
        if len(calls) == call:
            raise KeyboardInterrupt
        return plain(pairs)

    model.scores = scores
    return model


def test_what_was_scored_is_not_scored_again(cross_encoder_folder, tmp_path):
    model = load(cross_encoder_folder)
    expected = by_hand(model)
    first = CachedCrossEncoder(model, tmp_path)
    assert torch.equal(first.scores(PAIRS), expected) and (first.asked, first.scored) == (47, 47)
    assert torch.equal(first.scores(PAIRS[:BLOCK]), expected[:BLOCK])
    assert (first.asked, first.scored) == (57, 47)
    copy = shutil.copytree(cross_encoder_folder, tmp_path / "another name")
    again = CachedCrossEncoder(stop_at(load(copy, token_budget=4096), 1), tmp_path)
    found = again.scores(PAIRS)
    assert torch.equal(found, expected) and (found.dtype, found.device) == (torch.float32, CPU)
    assert (again.asked, again.scored) == (47, 0)
    assert again.scores([]).shape == (0,)


def test_a_block_that_comes_twice_is_scored_once(cross_encoder_folder, tmp_path):
    model = CachedCrossEncoder(load(cross_encoder_folder), tmp_path)
    found = model.scores(PAIRS[:BLOCK] * 2)
    assert model.scored == BLOCK and torch.equal(found[:BLOCK], found[BLOCK:])


@pytest.mark.parametrize("call", [1, 3, 5])
def test_a_stopped_run_goes_on_with_the_block_it_was_at(cross_encoder_folder, tmp_path, call):
    with pytest.raises(KeyboardInterrupt):
        CachedCrossEncoder(stop_at(load(cross_encoder_folder), call), tmp_path).scores(PAIRS)
    model = load(cross_encoder_folder)
    again = CachedCrossEncoder(model, tmp_path)
    found = again.scores(PAIRS)
    assert again.scored == 47 - BLOCK * (call - 1)
    assert torch.equal(found, by_hand(model))  # to the bit


@pytest.mark.parametrize("torn", ["keys.bin", "vectors.bin"])
@pytest.mark.parametrize("lost", [1, 15])
def test_a_torn_end_is_scored_again_and_written_over(cross_encoder_folder, tmp_path, torn, lost):
    model = load(cross_encoder_folder)
    CachedCrossEncoder(model, tmp_path).scores(PAIRS)
    (file,) = tmp_path.glob(f"*/{torn}")
    whole = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(whole - lost)
    for scored in (7, 0):  # the last block has 47 - 40 pairs
        again = CachedCrossEncoder(model, tmp_path)
        assert torch.equal(again.scores(PAIRS), by_hand(model)) and again.scored == scored
    assert file.stat().st_size == whole


def change_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][0, 0] += 1e-4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(name, **fields):
    def change(folder):
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(content | fields))

    return change


OTHERS = {
    "weights": (change_weight, {}),
    "config": (change_json("config.json", hidden_act="relu"), {}),
    "tokenizer": (change_json("tokenizer_config.json", truncation_side="left"), {}),
    "its own length": (change_json("tokenizer_config.json", model_max_length=16), {}),
    "length": (None, {"max_length": 16}),
    "precision": (None, {"precision": "bf16"}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_another_model_length_or_precision_gave_is_not_taken(cross_encoder_folder, tmp_path, what):
    CachedCrossEncoder(load(cross_encoder_folder), tmp_path / "cache").scores(PAIRS)
    change, options = OTHERS[what]
    folder = shutil.copytree(cross_encoder_folder, tmp_path / "other")
    if change is not None:
        change(folder)
    other = load(folder, **options)
    model = CachedCrossEncoder(other, tmp_path / "cache")
    assert torch.equal(model.scores(PAIRS), by_hand(other)) and model.scored == 47
    assert CachedCrossEncoder(load(cross_encoder_folder), tmp_path / "cache").scores(PAIRS).shape == (47,)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_key_has_the_prompt_the_length_and_what_sentence_transformers_does(
    cross_encoder_folder, tmp_path
):
    model = load(cross_encoder_folder, max_length=20)
    key = score_key(model)
    assert (key.prompt, key.max_length, key.precision, key.dimension) == ("", 20, "float32", BLOCK)
    model.backend.save(str(tmp_path / "saved"))
    assert score_key(load(tmp_path / "saved")) == key
    change_json(
        "config_sentence_transformers.json", prompts={"ask": "find: "}, default_prompt_name="ask"
    )(tmp_path / "saved")  # fmt: skip
    asked = score_key(load(tmp_path / "saved"))
    assert asked.prompt == "find: " and asked.folder != key.folder


@pytest.mark.parametrize(
    "changed",
    [
        [("what page 0 ", PAIRS[0][1]), *PAIRS[1:BLOCK]],
        [(PAIRS[0][0], PAIRS[0][1] + "."), *PAIRS[1:BLOCK]],
        [PAIRS[0][::-1], *PAIRS[1:BLOCK]],
        [(PAIRS[0][0] + PAIRS[0][1], ""), *PAIRS[1:BLOCK]],
        PAIRS[: BLOCK - 1],
        PAIRS[1 : BLOCK + 1],
    ],
    ids=["query", "document", "swapped", "joined", "fewer", "moved"],
)
def test_changed_texts_are_scored(cross_encoder_folder, tmp_path, changed):
    plain = load(cross_encoder_folder)
    model = CachedCrossEncoder(plain, tmp_path)
    model.scores(PAIRS[:BLOCK])
    assert torch.equal(model.scores(changed), plain.scores(changed))
    assert model.scored == BLOCK + len(changed)


def test_two_at_the_same_time_share_the_work(cross_encoder_folder, tmp_path):
    both = threading.Barrier(2)

    def meeting(model: CrossEncoder) -> CrossEncoder:
        plain, calls = model.scores, []

        def scores(pairs):
            calls.append(pairs)
            if len(calls) == 1:
                both.wait(timeout=60)  # breaks if the other one waits for this block
            return plain(pairs)

        model.scores = scores
        return model

    expected = by_hand(load(cross_encoder_folder))
    models = [CachedCrossEncoder(meeting(load(cross_encoder_folder)), tmp_path) for _ in range(2)]
    found = {}
    threads = [
        threading.Thread(target=lambda at=at, model=model: found.update({at: model.scores(PAIRS)}))
        for at, model in enumerate(models)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert torch.equal(found[0], expected) and torch.equal(found[1], expected)
    assert sum(model.scored for model in models) == 47 and all(model.scored for model in models)
    assert len(EmbeddingStore(tmp_path, score_key(load(cross_encoder_folder)))) == 5


def test_a_cache_that_is_a_file_is_told(cross_encoder_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another folder as cache") as caught:
        CachedCrossEncoder(load(cross_encoder_folder), tmp_path / "file")
    assert "\n" not in str(caught.value)
