"""What is decayed, and the learning rate at every step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.objective import ObjectiveOptions
from lit_retrofit.training.optimizer import (
    OptimizerOptions,
    apply_options,
    build_optimizer,
    build_schedule,
    check_options,
)


@pytest.mark.parametrize("lora", [None, LoraOptions(r=2)], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_biases_norms_and_the_temperature_are_not_decayed(
    model_folder, kind: str, lora: LoraOptions | None
) -> None:
    module = Retriever(
        EncoderOptions(str(model_folder(kind)), lora=lora), ObjectiveOptions(learn_temperature=True)
    )
    optimizer = build_optimizer(module.parameters(), OptimizerOptions(0.01, weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    seen = {"decayed": 0, "not": 0}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in decay
        elif name.endswith("bias") or "norm" in name.lower() or name == "objective.log_scale":
            assert decay[id(parameter)] == 0.0, name
            seen["not"] += 1
        else:
            assert decay[id(parameter)] == 0.3, name
            seen["decayed"] += 1
    assert all(seen.values())
    assert all(group["lr"] == 0.01 for group in optimizer.param_groups)


def rates(schedule: str, warmup: float, steps: int) -> list[float]:
    optimizer = build_optimizer([nn.Parameter(torch.zeros(2))], OptimizerOptions(1.0))
    scheduler = build_schedule(optimizer, OptimizerOptions(1.0, warmup=warmup, schedule=schedule), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_learning_rate_at_every_step() -> None:
    rise = [0.0, 0.5]
    assert rates("linear", 0.2, 10) == pytest.approx([*rise, *(1 - i / 8 for i in range(8))])
    assert rates("cosine", 0.2, 10) == pytest.approx(
        [*rise, *(0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8))]
    )
    assert rates("constant", 0.2, 10) == pytest.approx([*rise, *[1.0] * 8])
    assert rates("constant", 0.0, 3) == [1.0] * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("weight_decay", -0.1),
        ("warmup", 1.1),
        ("warmup", -0.1),
        ("learning_rate", math.nan),
    ],
)
def test_values_that_cannot_be_meant(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        check_options(OptimizerOptions(**{field: value}))
    check_options(OptimizerOptions())


def stepped(options: OptimizerOptions, steps: int, weights: list[nn.Parameter]):
    """An optimizer and its schedule of ten steps after some of them."""
    optimizer = build_optimizer(weights, options)
    schedule = build_schedule(optimizer, options, 10)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        schedule.step()
    return optimizer, schedule


@pytest.mark.parametrize("options", [
    OptimizerOptions(0.1, 0.2), OptimizerOptions(0.003, 0.2), OptimizerOptions(0.1, 0.7, 0.5, "cosine"),
])  # fmt: skip
def test_a_checkpoints_rate_and_decay_give_way_to_the_options(options: OptimizerOptions) -> None:
    """Afterwards they are those of an optimizer that has taken as many steps with the options."""
    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    saved, saved_schedule = stepped(OptimizerOptions(0.1, 0.2), 4, weights)
    found, schedule = stepped(options, 0, weights)
    found.load_state_dict(saved.state_dict())
    schedule.load_state_dict(saved_schedule.state_dict())
    apply_options(found, schedule, options)
    expected, expected_schedule = stepped(options, 4, weights)
    assert schedule.get_last_lr() == expected_schedule.get_last_lr()
    for _ in range(3):
        for group, wanted in zip(found.param_groups, expected.param_groups, strict=True):
            assert {k: v for k, v in group.items() if k != "params"} == {
                k: v for k, v in wanted.items() if k != "params"
            }
        found.step(), schedule.step(), expected.step(), expected_schedule.step()
    assert all(torch.equal(found.state[w]["step"], torch.tensor(7.0)) for w in weights)
