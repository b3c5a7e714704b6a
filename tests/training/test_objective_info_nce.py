"""InfoNCE: each option reaches the loss, what the batch says is obeyed, and mistakes are told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from retrofit_kernels import ContrastiveOptions, Guide, Threshold
from retrofit_kernels.reference import reference_info_nce
from torch.nn.functional import normalize
from torch.testing import assert_close

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective import Objective, ObjectiveOptions, StepEmbeddings
from lit_retrofit.training.objective.contrastive import InfoNCEOptions

from .objective_cases import DIMENSION, make_step, with_leaves

OPTIONS = {
    "none": {},
    "absolute threshold": {"false_negatives": Threshold(0.1, "absolute")},
    "margin": {"false_negatives": Threshold(0.1, "margin")},
    "percentage": {"false_negatives": Threshold(0.95, "percentage")},
    "query_to_query": {"query_to_query": True},
    "document_to_document": {"document_to_document": True},
    "both_directions": {"both_directions": True},
    "hardness": {"hardness": 5.0},
    "focal": {"focal": 0.5},
    "prefixes": {"prefixes": (2, 4, 6)},
    "prefix weights": {"prefixes": (2, 6), "prefix_weights": (0.25, 1.0)},
    "several": {
        "false_negatives": Threshold(0.3),
        "query_to_query": True,
        "hardness": 2.0,
        "focal": 0.5,
        "prefixes": (3, 6),
    },
}
GUIDES = [Threshold(0.0), Threshold(0.2, "absolute"), Threshold(0.9, "percentage")]


def objective(scale: float = 5.0, **options) -> Objective:
    return Objective(ObjectiveOptions(1 / scale, info_nce=InfoNCEOptions(**options)), DIMENSION).double()


def expected_loss(step: StepEmbeddings, **options) -> torch.Tensor:
    ids = {"query_ids": step.known_positives, "document_ids": torch.arange(len(step.documents))}
    return reference_info_nce(
        step.queries,
        step.documents,
        scale=5.0,
        positives=step.positives,
        options=ContrastiveOptions(**ids, **options),
    )


def check(step: StepEmbeddings, found: Objective, **options) -> torch.Tensor:
    """Loss and gradient against whole matrices of logits, differentiated by autograd."""
    step = with_leaves(step)
    leaves = step.queries, step.documents
    loss, expected = found(step).loss, expected_loss(step, **options)
    assert_close(loss, expected, rtol=1e-6, atol=1e-8)  # the temperature is kept in fp32
    for gradient, other in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert other.abs().max() > 1e-3
        assert_close(gradient, other, rtol=1e-5, atol=1e-7)
    return loss


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_loss(name: str) -> None:
    options = OPTIONS[name]
    # Query 2 scores its positive below 0, where a percentage means nothing (trap 14).
    step = make_step(seed=2)
    flipped = step.queries.clone()
    flipped[2] *= -torch.sign(flipped[2] @ step.documents[step.positives[2]])
    step = replace(step, queries=flipped)
    loss = check(step, objective(**options), **options)
    if options:
        assert abs(loss - expected_loss(step)) > 1e-4  # the option changes something here


@pytest.mark.parametrize("threshold", GUIDES, ids=lambda t: t.rule)
def test_the_teacher_guides(threshold: Threshold) -> None:
    """By cosines, whatever the length of the teacher's vectors."""
    step = make_step()
    known = step.teacher_documents.nan_to_num(nan=0.5)
    step = replace(step, teacher_documents=known)
    guide = Guide(normalize(step.teacher_queries, dim=1), normalize(known, dim=1), threshold)
    loss = check(step, objective(guide=threshold), guide=guide)
    assert abs(loss - expected_loss(step)) > 1e-3


def test_where_the_teacher_says_nothing_nothing_is_left_out() -> None:
    step = make_step()
    silent = replace(step, teacher_documents=torch.full_like(step.teacher_documents, math.nan))
    output = objective(guide=Threshold(-0.5))(silent)
    assert_close(output.loss, expected_loss(step), rtol=1e-6, atol=1e-8)
    assert objective(guide=Threshold(-0.5))(step).figures["masked_pairs"] > output.figures["masked_pairs"]


def test_a_guide_without_teacher_embeddings() -> None:
    for name in ("teacher_queries", "teacher_documents"):
        with pytest.raises(UserError, match=r"info_nce\.guide needs the teacher's embeddings"):
            objective(guide=Threshold(0.0))(replace(make_step(), **{name: None}))


def test_private_documents_and_groups_of_the_batch_are_obeyed() -> None:
    step = make_step()
    owners = torch.tensor([-1, 0, 0, 1, -1, 2, 3, 3, -1])
    check(replace(step, owners=owners), objective(), owners=owners)
    groups = {
        "query_groups": torch.tensor([0, 1, 0, 1]),
        "document_groups": torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 1]),
    }
    check(replace(step, **groups), objective(), **groups)
    plain = objective()(step).figures["masked_pairs"]
    assert objective()(replace(step, owners=owners)).figures["masked_pairs"] > plain


def test_ids_of_the_batch_tell_known_positives_too() -> None:
    """Two columns of one id are one document: the second is no negative where the first is the answer."""
    step = make_step()
    ids = torch.arange(100, 109)
    positive = int(step.positives[1])
    other = (positive + 2) % 9
    ids[other] = ids[positive]
    known = torch.where(step.known_positives == -1, -1, ids[step.known_positives])
    left_out = replace(
        step, known_positives=torch.cat([step.known_positives, torch.tensor([[-1], [other], [-1], [-1]])], 1)
    )
    # The document counts as a query's answer wherever its double does.
    for row in range(4):
        if positive in step.known_positives[row].tolist():
            left_out.known_positives[row, 2] = other
        if other in step.known_positives[row].tolist():
            left_out.known_positives[row, 2] = positive
    found = objective()(replace(step, known_ids=known, document_ids=ids))
    assert_close(found.loss, expected_loss(left_out), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", [1e-4, 1e-3, 1.0])
def test_extreme_temperatures_and_rows_without_negatives_give_numbers(temperature: float) -> None:
    """Trap 12, in fp32: no overflow, no NaN where every candidate is masked, none of a zero vector."""
    step = make_step()
    owners = torch.zeros(9).long()  # all documents are query 0's: the others have no negatives
    queries = step.queries.float()
    queries[3] = 0
    step = with_leaves(replace(step, queries=queries, documents=step.documents.float(), owners=owners))
    options = ObjectiveOptions(temperature, info_nce=InfoNCEOptions(prefixes=(2, 6)))
    output = Objective(options, DIMENSION)(step)
    output.loss.backward()
    assert output.loss.isfinite()
    assert step.queries.grad.isfinite().all() and step.documents.grad.isfinite().all()
    assert step.queries.grad[1:].abs().max() == 0


@pytest.mark.parametrize(("options", "named"), [
    ({"prefixes": (4, 2)}, "prefixes must ascend"),
    ({"prefixes": (2, 7)}, "at most 6"),
    ({"prefix_weights": (1.0,)}, "prefix_weights"),
    ({"focal": -1.0}, "focal"),
    ({"hardness": math.inf}, "hardness"),
    ({"strip_bytes": 0}, "strip_bytes"),
    ({"false_negatives": Threshold(0.0, "percentage")}, "false_negatives.value"),
    ({"guide": Threshold(math.nan)}, "guide.threshold.value"),
])  # fmt: skip
def test_values_that_cannot_be_are_told_before_the_first_step(options: dict, named: str) -> None:
    with pytest.raises(UserError, match=rf"model\.objective\.info_nce: .*{named}"):
        objective(**options)
