"""The objective as a whole: the weighted sum, its temperature, its types, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective import Objective, ObjectiveOptions, StepEmbeddings
from lit_retrofit.training.objective.contrastive import InfoNCEOptions
from lit_retrofit.training.objective.distillation import DistillationOptions
from lit_retrofit.training.objective.embedding_matching import EmbeddingMatchingOptions
from lit_retrofit.training.objective.margin_mse import MarginMSEOptions
from lit_retrofit.training.objective.spread_out import SpreadOutOptions

from .objective_cases import DIMENSION, TEACHER, make_step, with_leaves

ALL = {
    "info_nce": InfoNCEOptions(weight=0.7),
    "distillation": DistillationOptions(weight=0.5),
    "margin_mse": MarginMSEOptions(weight=2.0),
    "embedding_matching": EmbeddingMatchingOptions(TEACHER, weight=1.5),
    "spread_out": SpreadOutOptions(weight=0.1),
}


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, 8, generator=generator, dtype=torch.float64), dim=1)


def build(options: ObjectiveOptions, dimension: int = DIMENSION) -> Objective:
    torch.manual_seed(3)
    return Objective(options, dimension).double()


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_cross_entropy_without_known_positives(temperature: float) -> None:
    queries, documents = unit(3, 1), unit(6, 2)
    positives = torch.tensor([4, 0, 4])
    known = torch.tensor([[4, 1], [0, -1], [4, -1]])
    logits = queries @ documents.T / temperature
    logits[0, 1] = -torch.inf  # another document that answers query 0
    expected = functional.cross_entropy(logits, positives)
    objective = build(ObjectiveOptions(temperature), 8)
    output = objective(StepEmbeddings(queries, documents, positives, known))
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    figures = {name: value.item() for name, value in output.figures.items()}
    accuracy = (logits.argmax(1) == positives).double().mean().item()
    assert figures == pytest.approx(
        {"info_nce": expected.item(), "accuracy": accuracy, "masked_pairs": 1, "temperature": temperature},
        rel=1e-6,
    )


def test_the_loss_is_the_weighted_sum_of_the_terms() -> None:
    step = make_step()
    whole = build(ObjectiveOptions(0.1, **ALL))
    output = whole(step)
    found, total = {}, 0.0
    for name, term in ALL.items():
        others = {} if name == "info_nce" else {"info_nce": InfoNCEOptions(weight=0.0)}
        one = build(ObjectiveOptions(0.1, **others, **{name: term}))
        single = one(step)
        assert single.loss.item() == pytest.approx(term.weight * single.figures[name].item(), rel=1e-12)
        found[name], total = single.figures[name], total + single.loss
    assert_close(output.loss, total)
    assert set(whole.figures) == output.figures.keys()
    for name, value in found.items():
        assert value > 0
        assert_close(output.figures[name], value)
    assert not any(value.requires_grad or value.dim() for value in output.figures.values())


def test_gradients_reach_embeddings_temperature_and_map() -> None:
    objective, step = build(ObjectiveOptions(0.1, learn_temperature=True, **ALL)), with_leaves(make_step())
    objective(step).loss.backward()
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    assert set(trained) == {"log_scale", "terms.embedding_matching.map.weight"}
    for tensor in (step.queries, step.documents, *trained.values()):
        assert tensor.grad is not None and (tensor.grad.abs().amax(-1) > 0).all()


def test_terms_that_are_absent_or_of_weight_0_are_not_computed() -> None:
    """They hold no parameters and do not ask for their data."""
    off = {name: replace(term, weight=0.0) for name, term in ALL.items() if name != "info_nce"}
    bare = replace(make_step(), negatives=None, teacher_scores=None, teacher_queries=None)
    first, second = build(ObjectiveOptions(0.1, **off)), build(ObjectiveOptions(0.1))
    assert set(first.state_dict()) == {"log_scale"}
    assert torch.equal(first(bare).loss, second(bare).loss)
    assert first(bare).figures.keys() == second(bare).figures.keys()
    # Without InfoNCE there is no accuracy either.
    silent = build(ObjectiveOptions(info_nce=InfoNCEOptions(weight=0.0), spread_out=SpreadOutOptions()))
    assert set(silent(bare).figures) == {"spread_out", "temperature"}


def test_the_learnt_temperature_gets_its_gradient_and_stays_positive() -> None:
    queries, documents, positives = unit(3, 1), unit(5, 2), torch.arange(3)
    step = StepEmbeddings(queries, documents, positives, torch.full((3, 1), -1))
    objective = build(ObjectiveOptions(0.1, learn_temperature=True), 8)
    objective(step).loss.backward()
    log_scale = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)
    functional.cross_entropy(queries @ documents.T * log_scale.exp(), positives).backward()
    assert objective.log_scale.grad.item() == pytest.approx(log_scale.grad.item(), rel=1e-6)
    with torch.no_grad():
        objective.log_scale.sub_(50)
    assert objective.temperature > 0


def test_a_fixed_temperature_is_not_trained() -> None:
    objective = Objective(ObjectiveOptions(0.05), 8)
    assert [p for p in objective.parameters() if p.requires_grad] == []
    assert objective.temperature == pytest.approx(0.05)


def test_the_batchs_own_temperature() -> None:
    step = replace(make_step(), temperature=0.5)
    found = build(ObjectiveOptions(0.02))(step)
    assert_close(found.loss, build(ObjectiveOptions(0.5))(make_step()).loss, rtol=1e-6, atol=1e-8)
    assert found.figures["temperature"].item() == pytest.approx(0.5)
    with pytest.raises(UserError, match=r"own temperature, 0\.5, .*learn_temperature"):
        build(ObjectiveOptions(0.02, learn_temperature=True))(step)


def test_autocast_does_not_round_the_loss() -> None:
    """Trap 11: cosines near 1 are 0.004 apart in bf16."""
    step = make_step()
    single = {
        name: getattr(step, name).float()
        for name in ("queries", "documents", "teacher_scores", "teacher_queries", "teacher_documents")
    }
    single["documents"] = functional.normalize(single["documents"] + 10 * single["queries"][0], dim=1)
    step = with_leaves(replace(step, **single))
    objective = build(ObjectiveOptions(0.02, **ALL)).float()
    expected = objective(step)
    by_hand = torch.autograd.grad(expected.loss, (step.queries, step.documents))
    with torch.autocast("cpu", torch.bfloat16):
        output = objective(step)
    assert output.loss.dtype == torch.float32
    for name, value in expected.figures.items():
        assert torch.equal(output.figures[name], value), name
    for gradient, other in zip(
        torch.autograd.grad(output.loss, (step.queries, step.documents)), by_hand, strict=True
    ):
        assert torch.equal(gradient, other)


def test_one_query_and_one_document_teach_nothing() -> None:
    """Trap 13; the sampler refuses such a batch."""
    step = with_leaves(make_step(queries=1, documents=1, negatives=0))
    output = build(ObjectiveOptions(0.02))(step)
    output.loss.backward()
    assert output.loss == 0 and step.queries.grad.abs().max() == 0


def test_one_query_with_hard_negatives_learns() -> None:
    """Trap 4: all documents count, not as many as there are queries."""
    step = with_leaves(make_step(queries=1, documents=3))
    output = build(ObjectiveOptions(0.5))(step)
    output.loss.backward()
    logits = step.queries @ step.documents.T / 0.5
    known = [c for c in step.known_positives[0].tolist() if c not in (-1, step.positives.item())]
    logits[0, known] = -torch.inf
    assert output.loss.item() == pytest.approx(functional.cross_entropy(logits, step.positives).item())
    assert (step.documents.grad.abs().amax(1) > 0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_cannot_be(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        Objective(ObjectiveOptions(temperature), 8)


def test_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match="no term"):
        Objective(ObjectiveOptions(info_nce=InfoNCEOptions(weight=0.0)), 8)


@pytest.mark.parametrize(
    "others",
    [
        {"spread_out": SpreadOutOptions()},
        {"distillation": DistillationOptions(temperature=0.1)},
    ],
)
def test_a_learnt_temperature_that_nothing_uses(others: dict) -> None:
    options = {"learn_temperature": True, "info_nce": InfoNCEOptions(weight=0.0), **others}
    with pytest.raises(UserError, match="learn_temperature"):
        Objective(ObjectiveOptions(**options), 8)


def test_a_learnt_temperature_that_distillation_uses() -> None:
    options = {"info_nce": InfoNCEOptions(weight=0.0), "distillation": DistillationOptions()}
    objective = build(ObjectiveOptions(0.1, learn_temperature=True, **options))
    objective(make_step()).loss.backward()
    assert objective.log_scale.grad.abs() > 0


def test_the_map_begins_the_same_for_a_seed_and_is_saved() -> None:
    options = ObjectiveOptions(embedding_matching=EmbeddingMatchingOptions(TEACHER))
    first, second = build(options), build(options)
    name = "terms.embedding_matching.map.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert first.state_dict()[name].shape == (TEACHER, DIMENSION)


def test_options_can_be_written_as_json() -> None:
    """They go into the training card and the logger's hyperparameters."""
    written = json.loads(json.dumps(asdict(ObjectiveOptions(0.1, **ALL))))
    assert written["temperature"] == 0.1
    assert written["distillation"]["weight"] == 0.5
