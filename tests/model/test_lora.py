"""Adapters: where they go, what is trained, what is refused."""

from __future__ import annotations

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions, find_targets

BERT = [
    "attention.output.dense", "attention.self.key", "attention.self.query", "attention.self.value",
    "intermediate.dense", "output.dense",
]  # fmt: skip
TARGETS = {"bert": BERT, "xlmr": BERT, "modernbert": ["attn.Wo", "attn.Wqkv", "mlp.Wi", "mlp.Wo"]}


def adapted(encoder) -> set[str]:
    return {
        name.split(".lora_A")[0].removeprefix("backbone.base_model.model.")
        for name, _ in encoder.named_parameters() if ".lora_A" in name
    }  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_every_linear_layer_of_every_block(model_folder, kind: str) -> None:
    plain = build_encoder(EncoderOptions(str(model_folder(kind))))
    assert find_targets(plain.backbone) == TARGETS[kind]
    encoder = build_encoder(
        EncoderOptions(str(model_folder(kind)), lora=LoraOptions(r=3, alpha=6, dropout=0.1))
    )
    prefix = "layers" if kind == "modernbert" else "encoder.layer"
    assert adapted(encoder) == {f"{prefix}.{i}.{name}" for i in range(2) for name in TARGETS[kind]}
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained and all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert {min(p.shape) for p in encoder.parameters() if p.requires_grad} == {3}
    assert encoder.training


@pytest.mark.parametrize("kind", TARGETS)
def test_the_top_layers_alone(model_folder, kind: str) -> None:
    options = LoraOptions(r=2, top_layers=1)
    encoder = build_encoder(EncoderOptions(str(model_folder(kind)), lora=options))
    prefix = "layers" if kind == "modernbert" else "encoder.layer"
    assert adapted(encoder) == {f"{prefix}.1.{name}" for name in TARGETS[kind]}


def test_named_targets(bert_folder) -> None:
    options = LoraOptions(r=2, targets=["query", "value"])
    encoder = build_encoder(EncoderOptions(str(bert_folder), lora=options))
    assert adapted(encoder) == {
        f"encoder.layer.{i}.attention.self.{n}" for i in range(2) for n in ("query", "value")
    }


def test_a_new_adapter_changes_nothing_and_its_update_is_scaled(bert_folder) -> None:
    ids, mask = torch.tensor([[0, 108, 55, 110, 2]]), torch.ones(1, 5, dtype=torch.long)
    plain = build_encoder(EncoderOptions(str(bert_folder))).eval()
    encoder = build_encoder(EncoderOptions(str(bert_folder), lora=LoraOptions(r=2, alpha=6))).eval()
    with torch.no_grad():
        assert (encoder(ids, mask) - plain(ids, mask)).abs().max() < 1e-6
        layer = encoder.backbone.base_model.model.encoder.layer[0].attention.self.query
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        b.fill_(0.5)
        x = torch.randn(4, 32)
        assert torch.allclose(layer(x) - layer.base_layer(x), 6 / 2 * x @ a.T @ b.T, atol=1e-5)


@pytest.mark.parametrize(("options", "named"), [
    (LoraOptions(r=0), "lora.r"),
    (LoraOptions(r=2, dropout=1.0), "lora.dropout"),
    (LoraOptions(r=2, top_layers=0), "lora.top_layers"),
    (LoraOptions(r=2, top_layers=3), "1 to 2"),
    (LoraOptions(r=2, targets=["query", "quary"]), "'quary'.*attention.self.query"),
])  # fmt: skip
def test_what_is_refused(bert_folder, options: LoraOptions, named: str) -> None:
    with pytest.raises(UserError, match=named):
        build_encoder(EncoderOptions(str(bert_folder), lora=options))
