"""From texts to vectors: pooling, prompts, lengths, padding, weights, what is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_retrofit.data.batching import make_micro_batches
from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions

KINDS = ("bert", "xlmr", "modernbert")
TEXTS = ["word", "the page of the text 12", "a", "?", "", "  ", "x y"]


@pytest.fixture
def build(model_folder) -> Callable[..., Encoder]:
    def make(kind: str = "bert", **options) -> Encoder:
        return build_encoder(EncoderOptions(str(model_folder(kind)), **options))

    return make


@pytest.fixture
def copy(bert_folder, tmp_path) -> Path:
    return Path(shutil.copytree(bert_folder, tmp_path / "copy"))


def padded(tokens: list[list[int]], width: int) -> tuple[Tensor, Tensor]:
    """All texts in one batch, whatever their lengths; arbitrary ids under the padding."""
    ids = torch.tensor([row + [7] * (width - len(row)) for row in tokens])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in tokens])


def alone(encoder: Encoder, ids: list[int]) -> Tensor:
    """By hand: the backbone without padding, pooled and normalised with plain indexing."""
    hidden = encoder.backbone(
        torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)
    ).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[encoder.options.pooling]
    return pooled / pooled.square().sum().sqrt()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_never_changes_an_embedding(build, kind: str, pooling: str) -> None:
    encoder = build(kind, pooling=pooling).eval()
    tokens = encoder.tokenizer(TEXTS, "document")
    assert len({len(ids) for ids in tokens}) > 3
    expected = torch.stack([alone(encoder, ids) for ids in tokens])
    longest = max(map(len, tokens))
    for width in (longest, longest + 9):
        assert (encoder(*padded(tokens, width)) - expected).abs().max() < 1e-5
    # As training does it.
    for part in make_micro_batches(tokens, encoder.tokenizer.pad_id, 40):
        found = encoder(part.input_ids, part.attention_mask)
        assert (found - expected[part.rows]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_blank_texts_have_embeddings(build, kind: str) -> None:
    encoder = build(kind, query_prompt="").eval()
    found = encoder(*padded(encoder.tokenizer(["", " ", "word"], "query"), 8))
    assert found.isfinite().all()
    assert torch.allclose(found.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@torch.no_grad()
def test_a_text_without_any_token_is_not_nan(build, pooling: str) -> None:
    encoder = build(pooling=pooling).eval()
    found = encoder(torch.tensor([[5, 6], [1, 1]]), torch.tensor([[1, 1], [0, 0]]))
    assert found.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_the_models_own_files(build, model_folder, kind: str) -> None:
    encoder = build(kind)
    options = encoder.options
    assert options.model == str(model_folder(kind))
    assert options.pooling == ("cls" if kind == "xlmr" else "mean")
    assert (options.query_prompt, options.document_prompt) == ("query: ", "passage: ")
    assert (options.query_max_length, options.document_max_length) == (16, 24)
    assert encoder.normalise
    assert encoder.dimension == 32


def test_given_settings_come_first(build) -> None:
    encoder = build(pooling="last", query_prompt="", document_prompt="text ", query_max_length=8)
    options = encoder.options
    assert (options.pooling, options.query_prompt, options.document_prompt) == ("last", "", "text ")
    assert (options.query_max_length, options.document_max_length) == (8, 24)
    tokens = encoder.tokenizer
    assert tokens(["word"], "query") == tokens.backend(["word"])["input_ids"]
    assert tokens(["word"], "document") == tokens.backend(["text word"])["input_ids"]


def test_prompts_once_and_lengths_per_role(build) -> None:
    encoder = build()
    long = "word " * 50
    for role, prompt, length in (("query", "query: ", 16), ("document", "passage: ", 24)):
        (ids,) = encoder.tokenizer([long], role)
        assert len(ids) == length
        expected = encoder.tokenizer.backend(prompt + long)["input_ids"]
        assert ids == [*expected[: length - 1], encoder.tokenizer.backend.sep_token_id]
        (short,) = encoder.tokenizer([long], role, 10)
        assert short == [*expected[:9], encoder.tokenizer.backend.sep_token_id]
        (same,) = encoder.tokenizer([long], role, 1000)
        assert same == ids


@pytest.mark.parametrize("kind", KINDS)
def test_all_positions_can_be_used_and_no_more(build, kind: str) -> None:
    """Each of these models takes 64 tokens; the RoBERTa has 66 positions, two of which are never used."""
    encoder = build(kind, document_max_length=64).eval()
    (ids,) = encoder.tokenizer(["word " * 100], "document")
    assert len(ids) == 64
    with torch.no_grad():
        assert encoder(torch.tensor([ids]), torch.ones(1, 64, dtype=torch.long)).isfinite().all()
    for field in ("query_max_length", "document_max_length"):
        with pytest.raises(UserError, match=f"{field}: 65 tokens; this model takes 4 to 64"):
            build(kind, **{field: 65})


@pytest.mark.parametrize("length", [0, -1, 3])
def test_a_length_without_room_for_text(build, length: int) -> None:
    with pytest.raises(UserError, match="query_max_length"):
        build(query_max_length=length)


def test_a_length_of_the_models_files_beyond_its_positions_is_cut(copy) -> None:
    config = json.loads((copy / "sentence_bert_config.json").read_text())
    config.update(query_length=None, document_length=None, max_seq_length=512)
    (copy / "sentence_bert_config.json").write_text(json.dumps(config))
    options = build_encoder(EncoderOptions(str(copy))).options
    assert (options.query_max_length, options.document_max_length) == (64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_training_mode_with_dropout(build, kind: str) -> None:
    encoder = build(kind)
    assert all(module.training for module in encoder.modules())
    ids, mask = torch.tensor([[0, 108, 55, 110, 2]]), torch.ones(1, 5, dtype=torch.long)
    assert not torch.equal(encoder(ids, mask), encoder(ids, mask))
    without = build(kind, dropout=0.0)
    assert torch.equal(without(ids, mask), without(ids, mask))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lora", [None, LoraOptions(r=2)], ids=["full", "lora"])
def test_weights_are_float32_whatever_the_checkpoint(
    copy, dtype: torch.dtype, lora: LoraOptions | None
) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(copy, dtype=dtype).save_pretrained(copy)
    assert json.loads((copy / "config.json").read_text())["dtype"] == str(dtype).split(".")[1]
    encoder = build_encoder(EncoderOptions(str(copy), lora=lora))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_float32_out_of_autocast_and_float64_out_of_float64(build) -> None:
    encoder = build(dropout=0.0)
    ids, mask = torch.tensor([[0, 108, 55, 110, 2]]), torch.ones(1, 5, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(ids, mask)
    assert half.dtype == torch.float32
    assert abs(half.norm().item() - 1) < 1e-6  # normalised in float32
    assert encoder.double()(ids, mask).dtype == torch.float64


def test_states_in_half_precision_are_pooled_in_float32(build) -> None:
    """Not every backbone ends in a norm that autocast keeps in float32."""
    encoder = build(dropout=0.0)
    states = torch.randn(2, 200, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    encoder.states = lambda *_: states
    found = encoder(torch.ones(2, 200, dtype=torch.long), torch.ones(2, 200, dtype=torch.long))
    assert found.dtype == torch.float32
    expected = torch.nn.functional.normalize(states.double().mean(1), dim=1)
    assert (found - expected).abs().max() < 1e-6


def test_full_fine_tuning_trains_all_but_the_unused_pooler(build) -> None:
    encoder = build()
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.pooler.dense.weight", "backbone.pooler.dense.bias"}


def test_frozen_embeddings(build) -> None:
    encoder = build(freeze_embeddings=True)
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    assert {name for name in frozen if "pooler" not in name} == {"backbone.embeddings.word_embeddings.weight"}


def test_without_normalisation_where_the_model_has_none(copy) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(
        json.dumps([m for m in modules if not m["type"].endswith("Normalize")])
    )
    encoder = build_encoder(EncoderOptions(str(copy), dropout=0.0))
    assert not encoder.normalise
    vector = encoder(torch.tensor([[0, 108, 2]]), torch.ones(1, 3, dtype=torch.long))
    assert abs(vector.norm().item() - 1) > 0.1


@pytest.mark.parametrize("lora", [None, LoraOptions(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient(build, kind: str, lora: LoraOptions | None) -> None:
    ids, mask = torch.tensor([[0, 108, 55, 110, 2]] * 2), torch.ones(2, 5, dtype=torch.long)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = build(kind, lora=lora, gradient_checkpointing=checkpointing)
        torch.manual_seed(0)
        encoder(ids, mask).pow(3).sum().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    assert all(torch.allclose(gradients[1][n], g, atol=1e-6) for n, g in gradients[0].items())


@pytest.mark.parametrize("lora", [None, LoraOptions(r=4, alpha=32)], ids=["full", "lora"])
@torch.no_grad()
def test_the_merged_backbone_is_the_trained_one(build, lora: LoraOptions | None) -> None:
    encoder = build(lora=lora).eval()
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.3)
    ids, mask = torch.tensor([[0, 108, 55, 110, 2]]), torch.ones(1, 5, dtype=torch.long)
    expected = encoder.backbone(ids, mask).last_hidden_state
    merged = encoder.merged_backbone()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert (merged(ids, mask).last_hidden_state - expected).abs().max() < 1e-5
