"""Each term beyond InfoNCE against its formula written out: value, gradient, what is left out, faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective import Objective, ObjectiveOptions, StepEmbeddings
from lit_retrofit.training.objective import similarities as similarities_module
from lit_retrofit.training.objective.contrastive import InfoNCEOptions
from lit_retrofit.training.objective.distillation import DistillationOptions
from lit_retrofit.training.objective.embedding_matching import EmbeddingMatchingOptions
from lit_retrofit.training.objective.margin_mse import MarginMSEOptions
from lit_retrofit.training.objective.similarities import similarities_of
from lit_retrofit.training.objective.spread_out import SpreadOutOptions

from .objective_cases import (
    DIMENSION,
    TEACHER,
    dense_distillation,
    dense_embedding_matching,
    dense_margin_mse,
    dense_spread_out,
    make_step,
    with_leaves,
)

EXACT = {"rtol": 1e-9, "atol": 1e-11}
TERMS = {
    "distillation": DistillationOptions(teacher_temperature=2.0),
    "margin_mse": MarginMSEOptions(teacher_scale=0.3),
    "embedding_matching": EmbeddingMatchingOptions(TEACHER),
    "spread_out": SpreadOutOptions(),
}


def alone(name: str, term: object = None, **options) -> Objective:
    """An objective of one term, in fp64."""
    torch.manual_seed(3)
    parts = {name: term or TERMS[name]}
    only = ObjectiveOptions(info_nce=InfoNCEOptions(weight=0.0), **parts, **options)
    return Objective(only, DIMENSION).double()


def dense(name: str, objective: Objective, step: StepEmbeddings) -> Tensor:
    """The term's formula, by loops and whole matrices."""
    if name == "distillation":
        return dense_distillation(step, objective.log_scale.exp(), 2.0)
    if name == "margin_mse":
        return dense_margin_mse(step, 0.3)
    if name == "embedding_matching":
        return dense_embedding_matching(step, objective.terms["embedding_matching"].map.weight)
    return dense_spread_out(step)


def gradients(objective: Objective, step: StepEmbeddings, loss: Callable[[StepEmbeddings], Tensor]):
    """The loss, and its gradients by both kinds of embeddings and by all trained parameters."""
    leaves = with_leaves(step)
    value = loss(leaves)
    wanted = [leaves.queries, leaves.documents, *(p for p in objective.parameters() if p.requires_grad)]
    found = torch.autograd.grad(3 * value, wanted, allow_unused=True)  # not only for an upstream of 1
    return value, found


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_value_and_gradient_are_those_of_the_formula(name: str, seed: int) -> None:
    learnt = {"learn_temperature": True} if name == "distillation" else {}
    objective, step = alone(name, temperature=0.2, **learnt), make_step(seed=seed)
    value, found = gradients(objective, step, lambda s: objective(s).loss)
    expected, by_formula = gradients(objective, step, lambda s: dense(name, objective, s))
    assert abs(expected) > 1e-3
    assert_close(value, expected, **EXACT)
    assert len(found) == (2 if name in ("margin_mse", "spread_out") else 3)
    for gradient, other in zip(found, by_formula, strict=True):
        assert other.abs().max() > 1e-4
        assert_close(gradient, other, **EXACT)


@pytest.mark.parametrize("name", TERMS)
def test_gradcheck(name: str) -> None:
    objective, step = alone(name), make_step()

    def loss(queries: Tensor, documents: Tensor) -> Tensor:
        return objective(replace(step, queries=queries, documents=documents)).loss

    leaves = with_leaves(step)
    assert torch.autograd.gradcheck(loss, (leaves.queries, leaves.documents))


def test_the_divergence_against_numbers_by_hand() -> None:
    """P = (3/4, 1/4), Q = (1/2, 1/2): 3/4·ln(3/2) + 1/4·ln(1/2)."""
    step = StepEmbeddings(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[0.6, 0.8], [0.6, -0.8]]),
        torch.tensor([0]),
        torch.tensor([[0]]),
        negatives=torch.tensor([[1]]),
        teacher_scores=torch.tensor([[2 * math.log(3), 0.0]]),
    )
    options = ObjectiveOptions(
        info_nce=InfoNCEOptions(weight=0.0), distillation=DistillationOptions(teacher_temperature=2.0)
    )
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert Objective(options, 2)(step).loss.item() == pytest.approx(expected, rel=1e-5)


def test_distillation_may_have_a_temperature_of_its_own() -> None:
    step = make_step()
    objective = alone("distillation", DistillationOptions(teacher_temperature=2.0, temperature=0.5))
    assert_close(objective(step).loss, dense_distillation(step, 2.0, 2.0), **EXACT)
    assert_close(objective(replace(step, temperature=0.1)).loss, dense_distillation(step, 2.0, 2.0), **EXACT)


def test_the_batchs_own_temperature_takes_the_configured_ones_place() -> None:
    step = replace(make_step(), temperature=0.4)
    output = alone("distillation")(step)
    assert_close(output.loss, dense_distillation(step, 1 / 0.4, 2.0), rtol=1e-6, atol=1e-8)
    assert output.figures["temperature"].item() == pytest.approx(0.4)


def test_what_the_teacher_does_not_say_is_left_out_and_counted() -> None:
    step = make_step()
    step.teacher_scores[3, 1:] = math.nan  # a query whose negatives have no score at all
    for name in ("distillation", "margin_mse"):
        figures = alone(name)(step).figures
        # Query 2 lacks its positive's score, query 3 those of its negatives.
        assert figures["without_teacher"].item() == pytest.approx(2 / 4)
        # Of 4 positives and 11 negatives: one positive, one negative of query 0 and two of query 3.
        assert figures["unknown_scores"].item() == pytest.approx(4 / 15)
    figures = alone("embedding_matching")(step).figures
    assert figures["without_teacher_embedding"].item() == pytest.approx(1 / 13)


@pytest.mark.parametrize("name", ["distillation", "margin_mse", "embedding_matching"])
def test_a_batch_of_which_the_teacher_knows_nothing_has_loss_and_gradient_0(name: str) -> None:
    step = make_step()
    for tensor in (step.teacher_scores, step.teacher_queries, step.teacher_documents):
        tensor.fill_(math.nan)
    objective = alone(name)
    value, found = gradients(objective, step, lambda s: objective(s).loss)
    assert value == 0
    assert all(gradient.abs().max() == 0 for gradient in found)
    figures = objective(step).figures
    assert figures.get("without_teacher", figures.get("without_teacher_embedding")) == 1


@pytest.mark.parametrize("name", ["distillation", "margin_mse"])
def test_queries_without_any_negative_are_left_out(name: str) -> None:
    objective = alone(name)
    value, found = gradients(objective, make_step(negatives=0), lambda s: objective(s).loss)
    assert value == 0
    assert all(gradient.abs().max() == 0 for gradient in found)
    assert objective(make_step(negatives=0)).figures["without_teacher"] == 1


@pytest.mark.parametrize("name", TERMS)
def test_a_batch_of_one_query(name: str) -> None:
    step = make_step(queries=1, documents=4, negatives=2)
    step.teacher_scores[0] = torch.tensor([2.0, 0.5, 1.0])
    step.negatives[0] = torch.tensor([1, 3])
    objective = alone(name)
    value, found = gradients(objective, step, lambda s: objective(s).loss)
    if name == "spread_out":  # one query has nothing to be apart from
        assert found[0].abs().max() < 1e-12
        expected = dense_spread_out(replace(step, queries=torch.eye(2, DIMENSION).double()))
    else:
        expected = dense(name, objective, step)
    assert_close(value, expected, **EXACT)
    assert value > 0 and found[1].abs().max() > 0


@pytest.mark.parametrize("name", TERMS)
def test_zero_embeddings_give_numbers(name: str) -> None:
    """An empty text's embedding may be zero: it has no direction."""
    step = make_step()
    step.queries[1] = 0
    step.documents[step.positives[0]] = 0
    objective = alone(name)
    value, found = gradients(objective, step, lambda s: objective(s).loss)
    assert value.isfinite()
    assert all(gradient.isfinite().all() and gradient.abs().max() < 1e3 for gradient in found)


def test_extreme_scores_and_temperatures_give_numbers() -> None:
    step = make_step()
    step.teacher_scores.mul_(1e4)
    objective = alone("distillation", DistillationOptions(), temperature=1e-3).float()
    single = {n: getattr(step, n).float() for n in ("queries", "documents", "teacher_scores")}
    value, found = gradients(objective, replace(step, **single), lambda s: objective(s).loss)
    assert value.isfinite() and all(gradient.isfinite().all() for gradient in found)


def test_a_spread_out_set_has_the_mean_of_random_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(2000, 16, generator=generator), dim=1)
    nothing = torch.full((2000, 1), -1)
    step = StepEmbeddings(points, points, torch.arange(2000), nothing)
    options = ObjectiveOptions(info_nce=InfoNCEOptions(weight=0.0), spread_out=SpreadOutOptions())
    assert Objective(options, 16)(step).loss.item() == pytest.approx(2 / 16, rel=0.02)


@pytest.mark.parametrize("limit", [1, 7 * DIMENSION * 8, 10**9])
def test_similarities_in_blocks(monkeypatch, limit: int) -> None:
    monkeypatch.setattr(similarities_module, "_GATHERED_BYTES", limit)
    step = with_leaves(make_step())
    found = similarities_of(step.queries, step.documents, step.negatives)
    whole = (step.queries @ step.documents.T).gather(1, step.negatives.clamp(min=0))
    whole = whole.masked_fill(step.negatives == -1, 0.0)
    assert_close(found, whole)
    upstream = torch.arange(12.0).double().view(4, 3)
    leaves = (step.queries, step.documents)
    expected = torch.autograd.grad(whole, leaves, upstream)
    for gradient, other in zip(torch.autograd.grad(found, leaves, upstream), expected, strict=True):
        assert_close(gradient, other)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation makes, forward and backward."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self.most = max(self.most, tensor.numel())
        return made


def test_nothing_of_queries_times_documents_is_made() -> None:
    step = with_leaves(make_step(queries=500, documents=1500))
    options = ObjectiveOptions(info_nce=InfoNCEOptions(weight=0.0), **TERMS)
    objective = Objective(options, DIMENSION).double()
    with LargestTensor() as seen:
        objective(step).loss.backward()
    assert 2000 * DIMENSION <= seen.most <= 2 * 2000 * DIMENSION  # of 750,000 and 2,250,000


LACKING = {
    "distillation": [("negatives", "hard negatives"), ("teacher_scores", "teacher's scores")],
    "margin_mse": [("negatives", "hard negatives"), ("teacher_scores", "teacher's scores")],
    "embedding_matching": [
        ("teacher_queries", "teacher's embeddings"),
        ("teacher_documents", "teacher's embeddings"),
    ],
}


@pytest.mark.parametrize(
    ("name", "field", "words"), [(name, *pair) for name, pairs in LACKING.items() for pair in pairs]
)
def test_a_term_without_its_data_says_what_to_give(name: str, field: str, words: str) -> None:
    with pytest.raises(UserError) as told:
        alone(name)(replace(make_step(), **{field: None}))
    message = str(told.value)
    assert f"model.objective.{name}" in message and words in message and "\n" not in message


def test_a_teacher_of_another_dimension() -> None:
    with pytest.raises(UserError, match=r"embedding_matching\.dimension is 7.*set it to 5"):
        alone("embedding_matching", EmbeddingMatchingOptions(7))(make_step())


def test_scores_that_do_not_fit_the_negatives() -> None:
    step = make_step()
    with pytest.raises(ValueError, match=r"teacher_scores must have shape \(4, 4\)"):
        alone("margin_mse")(replace(step, teacher_scores=step.teacher_scores[:, 1:]))


@pytest.mark.parametrize(("term", "named"), [
    ({"distillation": DistillationOptions(teacher_temperature=0.0)}, "distillation.teacher_temperature"),
    ({"distillation": DistillationOptions(temperature=-1.0)}, "distillation.temperature"),
    ({"distillation": DistillationOptions(weight=-1.0)}, "distillation.weight"),
    ({"spread_out": SpreadOutOptions(weight=math.nan)}, "spread_out.weight"),
    ({"margin_mse": MarginMSEOptions(teacher_scale=0.0)}, "margin_mse.teacher_scale"),
    ({"embedding_matching": EmbeddingMatchingOptions(0)}, "embedding_matching.dimension"),
])  # fmt: skip
def test_values_that_cannot_be(term: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        Objective(ObjectiveOptions(**term), DIMENSION)
