"""Outputs that are made again instead of kept: the same gradients, to the last bit, from smaller graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_retrofit.model.cheap_layers import CheapLayers
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.training.graph_budget import GraphSize

NOTHING: frozenset[int] = frozenset()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.LayerNorm(8), nn.GELU()
        self.up, self.gate, self.down = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return x + self.down(self.act(self.up(normed))) + self.gate(normed).sum(1, keepdim=True)


def gradients(module: nn.Module, run, cheap: CheapLayers | None) -> tuple[list[Tensor], int]:
    with GraphSize(NOTHING, cheap) as size:
        output = run()
    module.zero_grad()
    (output * torch.arange(output.numel()).view_as(output).to(output.dtype)).sum().backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None], size.bytes


def test_the_graph_lacks_the_outputs_and_the_gradients_are_equal() -> None:
    torch.manual_seed(0)
    block, rows = Block(), torch.randn(6, 8, requires_grad=True)
    expected, all_bytes = gradients(block, lambda: block(rows), None)
    found, fewer = gradients(block, lambda: block(rows), CheapLayers(block))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all_bytes - fewer == (6 * 8 + 6 * 32) * 4  # the norm's output, and the activation's


@pytest.mark.parametrize("options", [{}, {"lora": LoraOptions(r=2)}])
@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16 autocast"])
def test_encoders(model_folder, kind: str, options: dict, half: bool) -> None:
    encoder = build_encoder(EncoderOptions(str(model_folder(kind)), dropout=0.0, **options))
    ids = torch.arange(5, 5 + 3 * 9).view(3, 9)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return encoder(ids, torch.ones_like(ids))

    run()
    expected, all_bytes = gradients(encoder, run, None)
    found, fewer = gradients(encoder, run, encoder.cheap)
    assert len(found) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # Under autocast a norm's output is kept anyway, as the 16-bit copy that the next layer reads.
    assert fewer <= all_bytes if half else fewer < 0.95 * all_bytes


def test_an_input_that_was_changed_is_told() -> None:
    norm, weight = nn.LayerNorm(4), nn.Linear(4, 4)
    rows = torch.randn(3, 4, requires_grad=True) * 2
    with GraphSize(NOTHING, CheapLayers(norm)):
        output = weight(norm(rows))
    rows.mul_(2)
    with pytest.raises(RuntimeError, match=r"changed|modified"):
        output.sum().backward()


def test_outputs_are_held_no_longer_than_they_are_read() -> None:
    norm, first, second = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)
    calls = []
    made = norm.forward
    norm.forward = lambda rows: calls.append(1) or made(rows)
    with GraphSize(NOTHING, CheapLayers(norm)):
        normed = norm(torch.randn(3, 4, requires_grad=True))
        output = first(normed) + second(normed)
    assert len(calls) == 1
    output.sum().backward()
    assert len(calls) == 2  # made again once, for both readers
