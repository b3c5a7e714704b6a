"""Compiled blocks through the engine: the uncompiled loss and gradients, compiled once for all shapes."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lit_retrofit.data.batching import TokenBatch, make_micro_batches
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.graph_budget import GraphBudget

TEXTS, STEPS = 40, 3
TOP = {"lora": LoraOptions(r=4, top_layers=1)}
CASES = {  # architecture, what is trained, whether texts are packed, gigabytes of graphs
    "padded, nothing kept": ("bert", {}, False, 0.0),
    "packed, half kept": ("xlmr", {"lora": LoraOptions(r=4)}, True, 0.0008),
    "packed, frozen blocks run once": ("bert", TOP, True, 0.0004),
    "packed, checkpointing": ("bert", {"gradient_checkpointing": True}, True, 0.0),
    "padded, checkpointing": ("bert", {"gradient_checkpointing": True}, False, 0.0),
}
UNCOMPILED = "packed, checkpointing"
"""Torch compiles nothing within a checkpoint once a piece of it cannot be; the user is told."""
MOST = 40
"""Compiled pieces: two to seven of a block, with and without a graph, before and after the first trained."""


@pytest.fixture(autouse=True)
def _nothing_compiled(caplog):
    caplog.set_level(logging.WARNING, "torch.__trace")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def step_of(seed: int) -> tuple[TokenBatch, ...]:
    """A text that is a micro-batch by itself, and others of 4 to 23 tokens: other shapes in every step."""
    chance = torch.Generator().manual_seed(seed)
    lengths = [53, *torch.randint(2, 22, (TEXTS - 1,), generator=chance).tolist()]
    tokens = [[0, *torch.randint(4, 110, (n,), generator=chance).tolist(), 2] for n in lengths]
    return make_micro_batches(tokens, 1, 100)


def build(folder, kind: str, trained: dict, packs: bool, **options) -> Encoder:
    made = EncoderOptions(str(folder(kind)), dropout=0.0, **trained, **options)
    torch.manual_seed(1)  # here: the folder is made when it is asked for, with a seed of its own
    encoder = build_encoder(made)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    if not packs:
        encoder.states.packs = lambda *_: False
    return encoder


def train(encoder: Encoder, micro_batches: tuple[TokenBatch, ...], gigabytes: float, half: bool = False):
    def context():
        return torch.autocast("cpu", torch.bfloat16, enabled=half)

    with context():
        cached = CachedEmbeddings(
            lambda batch: encoder(batch.input_ids, batch.attention_mask), micro_batches, TEXTS,
            GraphBudget(gigabytes), encoder.parameters(), {None: encoder.frozen} if encoder.frozen else {},
        )  # fmt: skip
    queries, documents = cached.leaf[: TEXTS // 2], cached.leaf[TEXTS // 2 :]
    loss = nn.functional.cross_entropy(queries @ documents.T * 10, torch.arange(TEXTS // 2))
    loss.backward()
    recomputed = cached.recomputed_tokens
    cached.backward(context)
    gradients = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    return loss.detach(), gradients, recomputed


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 5e-5 * largest, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "backend"),
    [(case, "inductor" if case == "packed, half kept" else "aot_eager") for case in CASES],
)
def test_trains_like_the_uncompiled_one(model_folder, monkeypatch, caplog, case: str, backend: str) -> None:
    """aot_eager traces and guards as inductor does, and leaves out the minutes of its C++ compiler."""
    kind, trained, packs, gigabytes = CASES[case]
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled = build(model_folder, kind, trained, packs, compile=True)
    plain = build(model_folder, kind, trained, packs)
    pieces = []
    for seed in range(STEPS):
        micro_batches = step_of(seed)
        loss, gradients, recomputed = train(compiled, micro_batches, gigabytes)
        expected_loss, expected, _ = train(plain, micro_batches, gigabytes)
        assert abs(loss - expected_loss) < 1e-5
        assert_close(gradients, expected)
        assert (recomputed > 0) == (gigabytes < 1)
        pieces.append(counters["stats"]["unique_graphs"])
    assert compiled.states.packs(compiled.backbone, torch.device("cpu")) == packs
    shapes = {batch.input_ids.shape for seed in range(STEPS) for batch in step_of(seed)}
    assert len(shapes) > 12
    assert (pieces[-1] == 0) == (case == UNCOMPILED) and pieces[-1] <= MOST
    assert ("compile has no effect" in caplog.text) == ("checkpointing" in case)
    assert pieces == pieces[:1] * STEPS  # all in the first step


@pytest.mark.slow
def test_trains_in_16_bits_like_the_uncompiled_one(model_folder, monkeypatch) -> None:
    kind, trained, packs, _ = CASES["packed, half kept"]
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled = build(model_folder, kind, trained, packs, compile=True)
    plain = build(model_folder, kind, trained, packs)
    found, gradients, _ = train(compiled, step_of(0), 1.0, half=True)
    loss, expected, _ = train(plain, step_of(0), 1.0, half=True)
    assert abs(found - loss) < 0.02
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() < 0.05 * gradient.norm(), name
