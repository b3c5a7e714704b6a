"""What the commands call MODEL: a base model, a run, a checkpoint."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.loading import find_checkpoint, load_encoder
from lit_retrofit.model.lora import LoraOptions


def save(encoder: Encoder, path: Path, **extra: object) -> Path:
    """What a training run leaves: the trained weights and the encoder's options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trained = {f"encoder.{n}": p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
    torch.save({"state_dict": trained, "encoder_options": asdict(encoder.options), **extra}, path)
    return path


def trained(folder: Path, seed: int = 0, **options) -> Encoder:
    torch.manual_seed(seed)
    encoder = build_encoder(EncoderOptions(str(folder), **options))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return encoder


@torch.no_grad()
def embed(encoder: Encoder) -> torch.Tensor:
    return encoder.eval()(torch.tensor([[0, 108, 55, 110, 2]]), torch.ones(1, 5, dtype=torch.long))


METHODS = {
    "full": {}, "frozen": {"freeze_embeddings": True}, "lora": {"lora": LoraOptions(r=2)},
    "top": {"lora": LoraOptions(r=2, top_layers=1), "gradient_checkpointing": True},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_checkpoint_is_the_trained_model(model_folder, tmp_path, kind: str, method: str) -> None:
    encoder = trained(
        model_folder(kind), query_prompt="", document_max_length=9, pooling="cls", **METHODS[method]
    )
    checkpoint = save(encoder, tmp_path / "a.ckpt")
    loaded = load_encoder(str(checkpoint))
    assert loaded.options == encoder.options
    assert torch.equal(embed(loaded), embed(encoder))
    assert dict(loaded.tokenizer.prompts) == {"query": "", "document": "passage: "}


def test_a_run_means_its_best_checkpoint_else_its_last(bert_folder, tmp_path) -> None:
    best, last = trained(bert_folder, 1), trained(bert_folder, 2)
    save(last, tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(embed(load_encoder(str(tmp_path))), embed(last))
    save(best, tmp_path / "checkpoints" / "best.ckpt")
    assert torch.equal(embed(load_encoder(str(tmp_path))), embed(best))
    assert find_checkpoint(str(bert_folder)) is None


def test_overrides(bert_folder, tmp_path) -> None:
    checkpoint = save(trained(bert_folder), tmp_path / "a.ckpt")
    for model in (checkpoint, bert_folder):
        options = load_encoder(
            str(model), query_prompt="", document_prompt="d: ", pooling="last", max_length=11
        ).options  # fmt: skip
        assert (options.query_prompt, options.document_prompt, options.pooling) == ("", "d: ", "last")
        assert (options.query_max_length, options.document_max_length) == (11, 11)


def test_an_override_may_be_longer_than_the_models_own_setting(bert_folder) -> None:
    assert load_encoder(str(bert_folder), max_length=60).options.query_max_length == 60


def test_weights_that_do_not_fit(bert_folder, xlmr_folder, tmp_path) -> None:
    encoder = trained(bert_folder, lora=LoraOptions(r=2))
    checkpoint = save(encoder, tmp_path / "a.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    first = next(iter(content["state_dict"]))
    for change in ("missing", "unexpected", "shape"):
        state = dict(content["state_dict"])
        if change == "missing":
            del state[first]
        elif change == "unexpected":
            state["encoder.other"] = torch.zeros(1)
        else:
            state[first] = torch.zeros(9, 9)
        torch.save({**content, "state_dict": state}, checkpoint)
        with pytest.raises(UserError, match="do not fit") as told:
            load_encoder(str(checkpoint))
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_checkpoint(tmp_path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="checkpoint"):
        load_encoder(str(tmp_path / "a.ckpt"))


def test_other_checkpoints(tmp_path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of"):
        load_encoder(str(tmp_path / "a.ckpt"))
    with pytest.raises(UserError, match="no such checkpoint"):
        load_encoder(str(tmp_path / "missing.ckpt"))
    torch.save({"encoder_options": {}, "state_dict": {}, "code": Path("x")}, tmp_path / "b.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_encoder(str(tmp_path / "b.ckpt"))


@pytest.mark.parametrize(
    "options", [{"freeze_layers": 1}, {"lora": LoraOptions(r=2, top_layers=1)}, {"compile": True}]
)
def test_a_loaded_encoder_can_be_sent_to_another_process(bert_folder, tmp_path, options: dict) -> None:
    encoder = trained(bert_folder, **options)
    loaded = load_encoder(str(save(encoder, tmp_path / "run.ckpt")))
    assert torch.equal(embed(pickle.loads(pickle.dumps(loaded))), embed(loaded))
