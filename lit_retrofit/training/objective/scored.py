"""A teacher's scores of each query's positive and own hard negatives, beside the student's similarities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective.processes import add_up
from lit_retrofit.training.objective.similarities import similarities_of
from lit_retrofit.training.objective.step import PADDING, StepEmbeddings


@dataclass(frozen=True, eq=False)
class ScoredCandidates:
    """The candidates of each query: first its positive, then its own hard negatives.

    A query without a score of its positive, or of any of its negatives, can teach nothing: none of its
    candidates is known.

    Attributes:
        similarities: (B, 1 + K), the student's, with gradient.
        scores: (B, 1 + K), the teacher's, in the same dtype; 0 where unknown.
        known: (B, 1 + K) bool: which of them to learn from.
        unknown_scores: 0-d, share of the candidates of all processes that the teacher did not score.
    """

    similarities: Tensor
    scores: Tensor
    known: Tensor
    unknown_scores: Tensor

    @property
    def taught(self) -> Tensor:
        """(B,) bool: queries to learn from."""
        return self.known[:, 0]


def scored_candidates(step: StepEmbeddings, term: str) -> ScoredCandidates:
    """The step's candidates for a term of that name.

    Raises:
        UserError: the batch has no hard negatives or no teacher scores at all.
        ValueError: their shapes do not fit each other.
    """
    if step.negatives is None:
        raise UserError(
            f"model.objective.{term} compares each query's positive with its own hard negatives, and the "
            "batch has none; mine them and set data.sampling.negatives to 1 or more, or leave the term out"
        )
    if step.teacher_scores is None:
        raise UserError(
            f"model.objective.{term} learns from a teacher's scores, and the batch has none; give records "
            "that carry the scores of their positives and negatives, or leave the term out"
        )
    columns = torch.cat([step.positives.unsqueeze(1), step.negatives], dim=1)
    if step.teacher_scores.shape != columns.shape:
        raise ValueError(
            f"teacher_scores must have shape {tuple(columns.shape)}, for the positive and each negative, "
            f"not {tuple(step.teacher_scores.shape)}"
        )
    scores = step.teacher_scores.to(step.queries.dtype)
    there, scored = columns != PADDING, scores.isfinite()
    known = there & scored
    known &= known[:, :1] & known[:, 1:].any(1, keepdim=True)
    counts = add_up(torch.stack([there.sum(), (there & ~scored).sum()]))
    return ScoredCandidates(
        similarities_of(step.queries, step.documents, columns),
        scores.masked_fill(~known, 0.0),
        known,
        counts[1] / counts[0].clamp(min=1),
    )
