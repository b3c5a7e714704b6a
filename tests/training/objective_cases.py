"""A random step with all that a term may ask for, and the terms' formulas by loops, for autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lit_retrofit.training.objective import StepEmbeddings

DIMENSION, TEACHER = 6, 5


def unit(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(rows, columns, generator=generator, dtype=torch.float64), dim=1)


def make_step(queries: int = 4, documents: int = 9, negatives: int = 3, seed: int = 0) -> StepEmbeddings:
    """fp64. The last query lacks a negative; one score of a negative and one of a positive are unknown."""
    generator = torch.Generator().manual_seed(seed)
    # The positives in no order: column i is not query i's.
    positives = torch.randperm(documents, generator=generator)[:queries]
    own = torch.randint(0, documents, (queries, negatives), generator=generator)
    known = torch.stack([positives, (positives + 1) % documents], dim=1)
    known[::2, 1] = -1
    scores = 3 * torch.randn(queries, 1 + negatives, generator=generator, dtype=torch.float64)
    teachers = [unit(rows, TEACHER, generator) for rows in (queries, documents)]
    if negatives:
        own[-1, -1] = -1
        scores[0, 1] = math.nan
        scores[queries // 2, 0] = math.nan
    teachers[1][2:3] = math.nan
    return StepEmbeddings(
        unit(queries, DIMENSION, generator),
        unit(documents, DIMENSION, generator),
        positives,
        known,
        negatives=own,
        teacher_scores=scores,
        teacher_queries=3 * teachers[0],  # teachers need not be unit vectors
        teacher_documents=2 * teachers[1],
    )


def with_leaves(step: StepEmbeddings) -> StepEmbeddings:
    """The same step, its embeddings new leaves."""
    leaves = (t.detach().clone().requires_grad_() for t in (step.queries, step.documents))
    return replace(step, **dict(zip(("queries", "documents"), leaves, strict=True)))


def dense_distillation(step: StepEmbeddings, scale: Tensor | float, teacher_temperature: float) -> Tensor:
    """Query by query and candidate by candidate."""
    losses = []
    for query, positive, negatives, scores in zip(
        step.queries, step.positives, step.negatives, step.teacher_scores, strict=True
    ):
        columns = [positive, *negatives]
        pairs = [(c, t) for c, t in zip(columns, scores, strict=True) if c != -1 and not t.isnan()]
        if scores[0].isnan() or len(pairs) < 2:
            continue
        teacher = torch.stack([t for _, t in pairs]) / teacher_temperature
        student = torch.stack([query @ step.documents[c] for c, _ in pairs]) * scale
        p, q = (x.exp() / x.exp().sum() for x in (teacher, student))
        losses.append((p * (p / q).log()).sum())
    return torch.stack(losses).mean()


def dense_margin_mse(step: StepEmbeddings, teacher_scale: float) -> Tensor:
    errors = []
    for query, positive, negatives, scores in zip(
        step.queries, step.positives, step.negatives, step.teacher_scores, strict=True
    ):
        for column, score in zip(negatives, scores[1:], strict=True):
            if column == -1 or score.isnan() or scores[0].isnan():
                continue
            margin = query @ step.documents[positive] - query @ step.documents[column]
            errors.append((margin - teacher_scale * (scores[0] - score)) ** 2)
    return torch.stack(errors).mean()


def dense_embedding_matching(step: StepEmbeddings, matrix: Tensor) -> Tensor:
    students = torch.cat([step.queries, step.documents])
    teachers = torch.cat([step.teacher_queries, step.teacher_documents])
    distances = [
        1 - (matrix @ e @ z) / ((matrix @ e).norm() * z.norm())
        for e, z in zip(students, teachers, strict=True)
        if not z.isnan().any()
    ]
    return torch.stack(distances).mean()


def dense_spread_out(step: StepEmbeddings) -> Tensor:
    total = torch.zeros((), dtype=step.queries.dtype)
    for embeddings in (step.queries, step.documents):
        similarities = embeddings @ embeddings.T
        others = ~torch.eye(len(embeddings), dtype=torch.bool)
        total = total + similarities[others].square().mean()
    return total
