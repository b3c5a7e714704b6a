"""Gradients of several processes go over the network once per optimizer step, whatever the micro-batches."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lit_retrofit.training.strategy import BUCKET_BYTES, OneSyncStrategy, add_up_gradients


@pytest.fixture
def sent(monkeypatch) -> list[torch.Tensor]:
    """What goes to the other process, which answers with as much again."""
    messages: list[torch.Tensor] = []

    def all_reduce(flat: torch.Tensor) -> None:
        messages.append(flat.clone())
        flat.mul_(2)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return messages


def test_one_message_for_all_micro_batches_of_all_accumulated_batches(sent) -> None:
    strategy = OneSyncStrategy()
    strategy._lightning_module = nn.Linear(3, 2)
    inputs = torch.arange(12.0).view(4, 3)
    with strategy.block_backward_sync():
        for part in inputs[:3]:
            strategy.lightning_module(part).sum().backward()
        strategy.post_backward(torch.zeros(()))
    assert not sent
    strategy.lightning_module(inputs[3]).sum().backward()
    strategy.post_backward(torch.zeros(()))
    assert len(sent) == 1
    assert sent[0].numel() == 8  # weight and bias together
    assert torch.equal(strategy.lightning_module.weight.grad, 2 * inputs.sum(0).expand(2, 3))


def test_frozen_weights_are_not_sent_and_missing_gradients_are_zeros(sent) -> None:
    strategy = OneSyncStrategy()
    strategy._lightning_module = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 1))
    strategy.post_backward(torch.zeros(()))
    assert [message.tolist() for message in sent] == [[0.0] * 4]


def test_buckets_are_large_and_of_one_type(sent) -> None:
    large = nn.Parameter(torch.zeros(BUCKET_BYTES // 4 - 1))
    small = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    half = nn.Parameter(torch.zeros(1, dtype=torch.float16))
    add_up_gradients([large, *small, half])
    assert [message.numel() for message in sent] == [BUCKET_BYTES // 4, 2, 1]
    assert sent[2].dtype == torch.float16
