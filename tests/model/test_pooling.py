"""Pooling for both sides of padding, against numbers written by hand."""

from __future__ import annotations

import pytest
import torch

from lit_retrofit.model.pooling import POOLING

STATES = torch.tensor([[1.0, 2.0], [3.0, 6.0], [8.0, 1.0]])
EXPECTED = {"mean": [4.0, 3.0], "cls": [1.0, 2.0], "last": [8.0, 1.0]}
RUBBISH = torch.full((2, 2), 1e6)


@pytest.mark.parametrize("pooling", list(POOLING))
@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_only_tokens_count(pooling, side: str) -> None:
    parts = {
        "right": ([STATES, RUBBISH], [1, 1, 1, 0, 0]),
        "left": ([RUBBISH, STATES], [0, 0, 1, 1, 1]),
        "both": ([RUBBISH[:1], STATES, RUBBISH[:1]], [0, 1, 1, 1, 0]),
    }
    states, mask = parts[side]
    hidden = torch.stack([torch.cat(states), torch.arange(10.0).view(5, 2)])
    found = POOLING[pooling](hidden, torch.tensor([mask, [1, 1, 1, 1, 1]]))
    whole = {"mean": [4.0, 5.0], "cls": [0.0, 1.0], "last": [8.0, 9.0]}
    assert torch.allclose(found, torch.tensor([EXPECTED[pooling], whole[pooling]]))


def test_the_mean_of_nothing_is_zero() -> None:
    found = POOLING["mean"](torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.long))
    assert torch.equal(found, torch.zeros(1, 3))
