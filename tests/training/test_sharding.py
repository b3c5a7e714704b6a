"""Options that do not go with split weights, and the helpers where nothing is split."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.training.faults import faults_in_one_line
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.sharded_strategy import ShardedStrategy
from lit_retrofit.training.sharding import (
    clip_by_norm,
    gathered,
    global_norm,
    own_part,
    part_of,
    whole_on_first,
)


def trainer(**options: object) -> SimpleNamespace:
    usual = {"world_size": 2, "precision": "bf16-mixed", "gradient_clip_algorithm": None}
    return SimpleNamespace(strategy=ShardedStrategy(), **{**usual, **options})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "16-mixed"}, r"16-mixed.*set bf16-mixed"),
        ({"gradient_clip_algorithm": "value"}, r"clipping by value.*gradient_clip_algorithm"),
        ({"precision": "bf16-true"}, r"bf16-true keeps the weights in half precision"),
    ],
)
def test_what_split_weights_cannot_do_is_refused(bert_folder, options: dict, told: str) -> None:
    module = Retriever(EncoderOptions(str(bert_folder)))
    module.trainer = trainer(**options)  # type: ignore[assignment]
    with pytest.raises(UserError, match=told):
        module.setup("fit")
    module.trainer = trainer()  # type: ignore[assignment]
    module.setup("fit")


def test_lightnings_own_refusal_of_a_precision_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"set bf16-mixed or 32-true"), faults_in_one_line():
        Trainer(accelerator="cpu", devices=1, strategy=ShardedStrategy(), precision="16-mixed", logger=False)


def test_a_compiled_encoder_is_refused(bert_folder) -> None:
    module = Retriever(EncoderOptions(str(bert_folder), compile=True))
    module.trainer = trainer()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"model\.encoder\.compile"):
        module.setup("fit")


def test_two_encoders_are_refused(bert_folder, xlmr_folder) -> None:
    module = Retriever(
        EncoderOptions(str(bert_folder)), document_encoder=EncoderOptions(str(xlmr_folder), freeze=True)
    )
    module.trainer = trainer()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"model\.document_encoder"):
        module.setup("fit")


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_is_torchs_own(most: float) -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((4, 3), (5,), ())]
    theirs = [torch.nn.Parameter(torch.zeros_like(p)) for p in ours]
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    gradients = [p.grad for p in ours if p.grad is not None]
    assert global_norm(gradients) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, most)))
    clip_by_norm(gradients, most)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.grad, other.grad)  # type: ignore[arg-type]
    assert global_norm([]) == 0


def test_what_is_not_split_is_left_as_it_is() -> None:
    module = torch.nn.Linear(2, 2)
    weight = module.weight.detach()
    with gathered(module):
        assert own_part(weight) is weight
    assert part_of(weight, torch.empty(2, 2)) is weight
    state = {"a": weight, "b": {0: 1, "c": [weight]}}
    found = whole_on_first(state)
    assert found["a"] is weight and found["b"] == {0: 1, "c": [weight]}
