"""The objective on a step's embeddings, against logits written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective import ContrastiveObjective, ObjectiveOptions


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, 8, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_cross_entropy_without_known_positives(temperature: float) -> None:
    queries, documents = unit(3, 1), unit(6, 2)
    positives = torch.tensor([4, 0, 4])
    known = torch.tensor([[4, 1], [0, -1], [4, -1]])
    logits = queries @ documents.T / temperature
    logits[0, 1] = -torch.inf  # another document that answers query 0
    expected = functional.cross_entropy(logits, positives)
    objective = ContrastiveObjective(ObjectiveOptions(temperature)).double()
    output = objective(queries, documents, positives, known)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.masked.item() == 1
    assert output.accuracy.item() == pytest.approx((logits.argmax(1) == positives).double().mean().item())


def test_the_learnt_temperature_gets_its_gradient_and_stays_positive() -> None:
    queries, documents, positives = unit(3, 1), unit(5, 2), torch.arange(3)
    objective = ContrastiveObjective(ObjectiveOptions(0.1, learn_temperature=True)).double()
    objective(queries, documents, positives, torch.full((3, 1), -1)).loss.backward()
    log_scale = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)
    functional.cross_entropy(queries @ documents.T * log_scale.exp(), positives).backward()
    assert objective.log_scale.grad.item() == pytest.approx(log_scale.grad.item(), rel=1e-6)
    with torch.no_grad():
        objective.log_scale.sub_(50)
    assert objective.temperature > 0


def test_a_fixed_temperature_is_not_trained() -> None:
    objective = ContrastiveObjective(ObjectiveOptions(0.05))
    assert [p for p in objective.parameters() if p.requires_grad] == []
    assert objective.temperature == pytest.approx(0.05)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_cannot_be(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        ContrastiveObjective(ObjectiveOptions(temperature))
