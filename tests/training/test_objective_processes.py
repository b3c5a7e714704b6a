"""Two processes with uneven shares against one: value, gradients in value and norm, figures (trap 1)."""

from __future__ import annotations

import gc
import os
import socket
from dataclasses import fields, replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from retrofit_kernels import Threshold
from torch.testing import assert_close

from lit_retrofit.training.objective import Objective, ObjectiveOptions, StepEmbeddings
from lit_retrofit.training.objective.contrastive import InfoNCEOptions
from lit_retrofit.training.objective.distillation import DistillationOptions
from lit_retrofit.training.objective.embedding_matching import EmbeddingMatchingOptions
from lit_retrofit.training.objective.margin_mse import MarginMSEOptions
from lit_retrofit.training.objective.spread_out import SpreadOutOptions

from .objective_cases import DIMENSION, TEACHER, make_step, with_leaves

EXACT = {"rtol": 1e-9, "atol": 1e-11}
QUERIES, DOCUMENTS = [4, 2], [9, 5]
OFF = InfoNCEOptions(weight=0.0)
EVERYTHING = {
    "info_nce": InfoNCEOptions(
        weight=0.5,
        query_to_query=True,
        both_directions=True,
        false_negatives=Threshold(0.4),
        guide=Threshold(0.1),
        focal=0.5,
        prefixes=(3, 6),
    ),
    "distillation": DistillationOptions(weight=2.0),
    "margin_mse": MarginMSEOptions(0.3),
    "embedding_matching": EmbeddingMatchingOptions(TEACHER),
    "spread_out": SpreadOutOptions(0.2),
}
CASES = {
    "info_nce": {"info_nce": InfoNCEOptions()},
    "distillation": {"info_nce": OFF, "distillation": DistillationOptions()},
    "margin_mse": {"info_nce": OFF, "margin_mse": MarginMSEOptions()},
    "embedding_matching": {"info_nce": OFF, "embedding_matching": EmbeddingMatchingOptions(TEACHER)},
    "spread_out": {"info_nce": OFF, "spread_out": SpreadOutOptions()},
    "everything": EVERYTHING,
}


def shares() -> list[StepEmbeddings]:
    """Each rank's step, with its own columns. Rank 1's lists of known positives are shorter."""
    first, second = (make_step(q, d, 3, seed) for q, d, seed in zip(QUERIES, DOCUMENTS, (0, 1), strict=True))
    first = replace(first, owners=torch.tensor([-1, -1, 0, -1, 2, -1, -1, 3, -1]))
    second = replace(
        second, known_positives=second.known_positives[:, :1], owners=torch.tensor([-1, 1, -1, -1, -1])
    )
    return [first, second]


def whole(parts: list[StepEmbeddings]) -> StepEmbeddings:
    """The batch that they make, as one process would see it."""

    def moved(name: str, by: list[int]) -> torch.Tensor:
        found = [getattr(part, name) for part in parts]
        found = [torch.where(t == -1, -1, t + first) for t, first in zip(found, by, strict=True)]
        width = max(t.shape[1] for t in found) if found[0].dim() == 2 else 0
        if width:
            found = [torch.nn.functional.pad(t, (0, width - t.shape[1]), value=-1) for t in found]
        return torch.cat(found)

    columns, rows = [0, DOCUMENTS[0]], [0, QUERIES[0]]
    joined = {name: moved(name, columns) for name in ("positives", "known_positives", "negatives")}
    joined["owners"] = moved("owners", rows)
    for name in ("queries", "documents", "teacher_scores", "teacher_queries", "teacher_documents"):
        joined[name] = torch.cat([getattr(part, name) for part in parts])
    return StepEmbeddings(**joined)


def build(options: dict) -> Objective:
    torch.manual_seed(3)
    learnt = options.get("info_nce") is not OFF or "distillation" in options
    return Objective(ObjectiveOptions(0.2, learn_temperature=learnt, **options), DIMENSION).double()


def differentiate(objective: Objective, step: StepEmbeddings):
    step = with_leaves(step)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    output = objective(step)
    found = torch.autograd.grad(2 * output.loss, [step.queries, step.documents, *trained])
    return output, found[:2], found[2:]


def alone(objective: Objective, step: StepEmbeddings):
    """What one process computes, here and now: as if there were no group."""
    keep = dist.is_initialized
    dist.is_initialized = lambda: False
    try:
        return differentiate(objective, step)
    finally:
        dist.is_initialized = keep


def norm(gradients) -> torch.Tensor:
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum()


def work(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    parts = shares()
    for name, options in CASES.items():
        output, embeddings, parameters = differentiate(build(options), parts[rank])
        expected, whole_embeddings, whole_parameters = alone(build(options), whole(parts))
        assert expected.loss > 1e-3, name
        assert_close(output.loss, expected.loss, **EXACT)
        assert output.figures.keys() == expected.figures.keys()
        for key, value in expected.figures.items():
            assert_close(output.figures[key], value, **EXACT)
        for found, other, counts in zip(embeddings, whole_embeddings, (QUERIES, DOCUMENTS), strict=True):
            begin = sum(counts[:rank])
            assert_close(found, other[begin : begin + counts[rank]], **EXACT)
        for found, other in zip(parameters, whole_parameters, strict=True):
            dist.all_reduce(found)
            assert_close(found, other, **EXACT)
        squares = norm(embeddings)
        dist.all_reduce(squares)
        assert_close(squares.sqrt(), norm(whole_embeddings).sqrt(), **EXACT)
    check_under_ddp(rank, parts)
    check_a_document_on_both_ranks(rank, parts)
    check_a_rank_that_the_teacher_does_not_know(rank, parts)
    gc.collect()  # DDP's reducer stands in a reference cycle and holds the group
    dist.destroy_process_group()


class Model(torch.nn.Module):
    """An encoder of one layer, and the objective with its own parameters, as one module."""

    def __init__(self) -> None:
        super().__init__()
        self.objective = build(EVERYTHING)
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(DIMENSION, DIMENSION).double()

    def forward(self, step: StepEmbeddings) -> torch.Tensor:
        both = (self.layer(step.queries), self.layer(step.documents))
        return self.objective(replace(step, queries=both[0], documents=both[1])).loss


def check_under_ddp(rank: int, parts: list[StepEmbeddings]) -> None:
    """Averaged over ranks, times their number, all parameters' gradients are those of one process."""
    model = Model()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    (wrapped(parts[rank]) * 2).backward()
    single = Model()
    keep = dist.is_initialized
    dist.is_initialized = lambda: False
    single(whole(parts)).backward()
    dist.is_initialized = keep
    for found, other in zip(model.parameters(), single.parameters(), strict=True):
        assert other.grad.abs().max() > 0
        assert_close(found.grad, other.grad, **EXACT)


def check_a_document_on_both_ranks(rank: int, parts: list[StepEmbeddings]) -> None:
    """Rank 1's document that is rank 0's positive is one document, if ids say so."""
    objective = build({"info_nce": InfoNCEOptions()})
    ids = [torch.arange(9), torch.arange(20, 25)]
    ids[1][4] = parts[0].positives[0]
    known = [
        torch.where(p.known_positives == -1, -1, i[p.known_positives])
        for p, i in zip(parts, ids, strict=True)
    ]
    without = objective(parts[rank]).figures["masked_pairs"]
    step = replace(parts[rank], known_ids=known[rank], document_ids=ids[rank])
    masked = objective(step).figures["masked_pairs"]
    # The copy on rank 1 is nobody's negative, and rank 0's column none of those that know the copy.
    queries = sum(len(part.queries) for part in parts)
    own, knows = parts[1].positives == 4, parts[1].known_positives.eq(4).any(1)
    expected = without + queries - int(own.sum()) - int((knows & ~own).sum()) + int(knows.sum())
    assert masked == expected > without


def check_a_rank_that_the_teacher_does_not_know(rank: int, parts: list[StepEmbeddings]) -> None:
    """It takes part in the mean of the others with nothing, and in every collective."""
    objective = build(CASES["distillation"])
    scores = torch.full_like(parts[1].teacher_scores, torch.nan)
    parts = [parts[0], replace(parts[1], teacher_scores=scores)]
    output, embeddings, _ = differentiate(objective, parts[rank])
    expected, _, _ = alone(objective, parts[0])
    assert_close(output.loss, expected.loss, **EXACT)
    assert (embeddings[0].abs().max() > 0) == (rank == 0)


@pytest.mark.slow
def test_two_processes_equal_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(work, args=(port,), nprocs=2, start_method="forkserver")


def test_every_field_of_a_step_is_joined_in_these_tests() -> None:
    """A new field must be thought of here too."""
    left = {"query_groups", "document_groups", "known_ids", "document_ids", "temperature"}
    joined = {f.name for f in fields(StepEmbeddings) if getattr(whole(shares()), f.name) is not None}
    assert joined == {f.name for f in fields(StepEmbeddings)} - left
