"""The merged layer against peft's own: values, gradients, and when it steps aside."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn

from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.model.merged_lora import MergedLoraLinear


@pytest.fixture
def layer(bert_folder):
    def make(**options) -> MergedLoraLinear:
        torch.manual_seed(0)
        encoder = build_encoder(EncoderOptions(str(bert_folder), lora=LoraOptions(r=4, alpha=12, **options)))
        found = encoder.backbone.base_model.model.encoder.layer[0].intermediate.dense
        nn.init.normal_(found.lora_B["default"].weight, std=0.3)
        return found

    return make


def results(layer, x, forward, half: torch.dtype | None = None):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", half, enabled=half is not None):
        y = forward(layer, x)
    (y if half is None else y.float()).pow(3).sum().backward()
    a, b = layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad
    assert a.abs().max() > 0 and b.abs().max() > 0
    return y.detach(), x.grad, a.clone(), b.clone()


@pytest.mark.parametrize("shape", [(7, 32), (3, 5, 32), (1, 32), (0, 32)], ids=str)
def test_equals_pefts_layer(layer, shape) -> None:
    layer = layer().double()
    x = torch.randn(*shape, dtype=torch.float64)
    if x.numel() == 0:
        assert layer(x).shape == (0, 48)
        return
    for made, expected in zip(
        results(layer, x, lambda m, x: m(x)), results(layer, x, Linear.forward), strict=True
    ):
        assert made.shape == expected.shape
        assert (made - expected).abs().max() < 1e-9 * expected.abs().max()


def test_gradcheck(layer) -> None:
    layer = layer().double()
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(2, 3, 32, dtype=torch.float64, requires_grad=True)

    def function(x, a, b):
        return torch.func.functional_call(
            layer, {"lora_A.default.weight": a, "lora_B.default.weight": b}, (x,)
        )

    assert torch.autograd.gradcheck(function, (x, a, b))


def test_an_input_without_gradient(layer) -> None:
    """The first layers of a frozen prefix get one: only the adapters' gradients are made."""
    layer = layer()
    layer(torch.randn(5, 32)).sum().backward()
    assert layer.lora_A["default"].weight.grad is not None


def test_fewer_things_are_kept_for_backward(layer) -> None:
    layer, x = layer(), torch.randn(1000, 32, requires_grad=True)

    def kept(forward) -> int:
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward(layer, x)
        return sum(sizes.values())

    assert kept(lambda m, x: m(x)) < kept(Linear.forward)


def merges(layer, x) -> bool:
    return type(layer(x).grad_fn).__name__ == "MergedProductBackward"


def test_peft_computes_what_cannot_be_merged(layer) -> None:
    x = torch.randn(5, 32)
    plain = layer()
    assert merges(plain, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not merges(plain, x)  # the update would be lost in rounding
    assert not merges(layer(dropout=0.1), x)
    assert merges(layer(dropout=0.1).eval(), x)
    plain.merge()
    assert not merges(plain, x)
    plain.unmerge()
    plain.enable_adapters(False)
    assert torch.equal(plain(x), plain.base_layer(x))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_no_further_from_the_truth_than_peft(layer, half) -> None:
    layer = layer()
    x = torch.randn(4, 9, 32)
    truth = results(layer.double(), x.double(), lambda m, x: m(x))
    layer.float()

    def distances(forward) -> list[float]:
        made = results(layer, x, forward, half)
        assert made[0].dtype == half and all(tensor.dtype == torch.float32 for tensor in made[1:])
        return [float((m.double() - t).norm() / t.norm()) for m, t in zip(made, truth, strict=True)]

    ours, pefts = distances(lambda m, x: m(x)), distances(Linear.forward)
    unit = torch.finfo(half).eps
    for own, theirs in zip(ours, pefts, strict=True):
        assert own < 1.1 * theirs + 0.1 * unit and own < 4 * unit


def test_half_inputs_get_half_gradients(layer) -> None:
    layer, x = layer(), torch.randn(2, 5, 32, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
    assert x.grad.dtype == torch.bfloat16 and x.grad.shape == x.shape
