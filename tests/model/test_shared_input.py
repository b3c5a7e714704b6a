"""LoRA layers of one input: computed at once, and to the same numbers as peft's, one by one."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from lit_retrofit.model import kept_weights, merged_lora
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.kept_weights import KeptWeights, in_use
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.model.merged_lora import MergedLoraLinear, join_layers
from lit_retrofit.model.trainable import make_trainable
from lit_retrofit.retrieval.embed import embed_texts

CPU = torch.device("cpu")
TOGETHER = ["q_proj", "k_proj", "v_proj"]


class Attention(nn.Module):
    """Three layers that read the states, and one of as many inputs that reads something else."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(32, 32)
        self.k_proj = nn.Linear(32, 16, bias=False)
        self.v_proj = nn.Linear(32, 16)
        self.o_proj = nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.o_proj((q * torch.cat([k, v], -1)).to(x.dtype))


@pytest.fixture
def attention() -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=[*TOGETHER, "o_proj"],
        rank_pattern={"k_proj": 2, "v_proj": 7}, alpha_pattern={"v_proj": 3},
    )  # fmt: skip
    config._register_custom_module({nn.Linear: MergedLoraLinear})
    made = get_peft_model(Attention(), config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    join_layers(made)
    return made


def results(model: nn.Module, x: Tensor, half: torch.dtype | None = None) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    with torch.autocast("cpu", half, enabled=half is not None):
        y = model(x)
    y.to(torch.promote_types(y.dtype, torch.float32)).pow(3).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"output": y.detach(), "x": x.grad, **found}


def one_by_one(monkeypatch, model: nn.Module, x: Tensor, half: torch.dtype | None = None):
    """The same with peft's own layers."""
    with monkeypatch.context() as patch:
        patch.setattr(MergedLoraLinear, "forward", Linear.forward)
        return results(model, x, half)


@pytest.fixture
def groups(monkeypatch) -> list[int]:
    """How many layers each product was for."""
    made = []
    multiply = merged_lora.multiply

    def counted(product, x, layers, kept):
        made.append(len(layers))
        return multiply(product, x, layers, kept)

    monkeypatch.setattr(merged_lora, "multiply", counted)
    return made


@pytest.mark.parametrize("shape", [(7, 32), (3, 5, 32), (1, 32)], ids=str)
def test_equals_pefts_layers(attention, monkeypatch, groups, shape) -> None:
    attention.double()
    x = torch.randn(*shape, dtype=torch.float64)
    expected = one_by_one(monkeypatch, attention, x)
    assert len(expected) == 2 + 2 * 4
    for _ in range(2):  # before and after o_proj has parted
        made = results(attention, x)
        assert made.keys() == expected.keys()
        for name, tensor in made.items():
            assert (tensor - expected[name]).abs().max() < 1e-9 * expected[name].abs().max(), name
    assert groups == [4, 1, 3, 1]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_no_further_from_the_truth_than_peft(attention, monkeypatch, groups, half) -> None:
    inputs = torch.randn(8, 4, 9, 32)
    truths = [one_by_one(monkeypatch, attention.double(), x.double()) for x in inputs]
    attention.float()
    pefts = [one_by_one(monkeypatch, attention, x, half) for x in inputs]
    ours = [results(attention, x, half) for x in inputs]
    assert ours[0]["output"].dtype == half and groups == [4, 1] + 7 * [3, 1]
    for name in truths[0]:
        pairs = [[made[name].double() for made in several] for several in (truths, ours, pefts)]
        own, theirs = (
            sum(float((m - true).norm() / true.norm()) for true, m in zip(pairs[0], several, strict=True))
            for several in pairs[1:]
        )
        assert own < 1.05 * theirs, name


def test_only_what_reads_the_same_input_stays_together(attention, groups) -> None:
    x, other = torch.randn(2, 5, 32)
    layers = attention.base_model.model
    for _ in range(2):
        for name in TOGETHER:
            getattr(layers, name)(x)
        layers.o_proj(other)
    assert groups == [4, 1, 3, 1]
    layers.q_proj(x)
    layers.k_proj(x)
    groups.clear()
    assert torch.equal(layers.v_proj(other), layers.v_proj(other))  # x's, computed already, is not taken
    assert groups == [1, 1]


def test_an_output_without_a_graph_is_not_taken_for_one_with_it(attention) -> None:
    x, layers = torch.randn(5, 32), attention.base_model.model
    with torch.no_grad():
        layers.q_proj(x)
    assert layers.k_proj(x).requires_grad
    layers.q_proj(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layers.v_proj(x).dtype == torch.bfloat16


def test_a_copy_holds_no_outputs(attention) -> None:
    x, layers = torch.randn(5, 32), attention.base_model.model
    layers.q_proj(x)  # the others wait, with their graph
    copied = copy.deepcopy(attention).base_model.model
    assert torch.equal(copied.k_proj(x), layers.k_proj(x))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_blocks_that_compute_again_part_from_no_layer(tmp_path, checkpointing: bool) -> None:
    """In a Qwen, the attention's last layer has as many inputs as query, key and value."""
    from transformers import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    options = EncoderOptions("", lora=LoraOptions(r=4), gradient_checkpointing=checkpointing)
    model = make_trainable(Qwen2Model(config), options).train()
    model(input_ids=torch.tensor([[4, 9, 8, 2]])).last_hidden_state.pow(2).sum().backward()
    assert sum(p.grad is not None for p in model.parameters()) == 2 * 2 * 7


def test_an_input_is_let_go_of_when_all_have_read_it(attention, groups) -> None:
    layers = attention.base_model.model
    attention(torch.randn(5, 32))  # o_proj parts from the others
    x = torch.randn(5, 32)
    for name in TOGETHER:
        getattr(layers, name)(x)
    assert groups == [4, 1, 3]
    kept = weakref.ref(x)
    del x
    gc.collect()
    assert kept() is None


def test_a_layer_that_is_not_plain_is_left_out(attention, monkeypatch, groups) -> None:
    x = torch.randn(3, 5, 32)
    attention.base_model.model.k_proj.merge()
    expected = one_by_one(monkeypatch, attention, x)
    made = results(attention, x)
    assert groups == [3, 1]
    for name, tensor in made.items():
        assert (tensor - expected[name]).abs().max() <= 1e-4 * expected[name].abs().max(), name


@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
def test_query_key_and_value_of_an_encoder(request, groups, kind) -> None:
    """modernbert has one layer for all three."""
    folder = request.getfixturevalue(f"{kind}_folder")
    encoder = build_encoder(EncoderOptions(str(folder), lora=LoraOptions(r=4)))
    encoder(torch.tensor([[0, 9, 8, 2]]), torch.ones(1, 4, dtype=torch.long))
    groups.clear()
    encoder(torch.tensor([[0, 9, 8, 2]]), torch.ones(1, 4, dtype=torch.long))
    together = {"bert": [3, 1, 1, 1], "xlmr": [3, 1, 1, 1], "modernbert": [1, 1, 1, 1]}
    assert groups == 2 * together[kind]


@pytest.mark.parametrize("half", [None, torch.bfloat16], ids=str)
def test_kept_weights_are_made_once_and_change_nothing(attention, monkeypatch, half) -> None:
    x = torch.randn(3, 5, 32)
    results(attention, x, half)
    expected = results(attention, x, half)
    kept = KeptWeights()
    with kept.in_use():
        made = results(attention, x, half)
        weights = dict(kept._made)
        again = results(attention, x, half)
    assert len(weights) == 4 and all(kept._made[key] is weight for key, weight in weights.items())
    for name, tensor in expected.items():
        assert torch.equal(made[name], tensor) and torch.equal(again[name], tensor), name


def test_of_a_large_model_not_all_weights_are_kept(attention, monkeypatch) -> None:
    x = torch.randn(3, 5, 32)
    results(attention, x)
    expected = results(attention, x)
    # A tenth of what is free has room for q's 32 x 32 weights and k's 16 x 32, not for v's and o's as well.
    monkeypatch.setattr(kept_weights, "free_memory", lambda device: 10 * 4 * 48 * 32)
    kept = KeptWeights()
    with kept.in_use():
        made = results(attention, x)
    assert sorted(weight.shape[0] for weight in kept._made.values()) == [16, 32]
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
    kept.clear()
    assert not kept._made
    assert kept.get("anew", lambda: torch.ones(48, 32)) is kept.get("anew", lambda: torch.zeros(48, 32))


def test_weights_are_kept_inside_alone_and_on_a_cpu_alone() -> None:
    assert in_use(CPU) is None
    outer, inner = KeptWeights(), KeptWeights()
    with outer.in_use():
        with inner.in_use():
            assert in_use(CPU) is inner and in_use(torch.device("cuda")) is None
        assert in_use(CPU) is outer
    assert in_use(CPU) is None


def test_texts_are_embedded_with_the_weights_of_the_moment(bert_folder) -> None:
    """Also if they were changed behind autograd's back, as averages of weights do."""
    encoder = build_encoder(EncoderOptions(str(bert_folder), lora=LoraOptions(r=4)))
    before = embed_texts(encoder, ["a page", "the word"], "document")
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.3)
    after = embed_texts(encoder, ["a page", "the word"], "document")
    assert (before - after).abs().max() > 0.01
