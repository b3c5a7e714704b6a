"""Distillation of a teacher's embeddings through a learnt linear map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective.processes import mean_of
from lit_retrofit.training.objective.step import StepEmbeddings, TermOutput


@dataclass(frozen=True)
class EmbeddingMatchingOptions:
    """Cosine distance between the mapped student and a larger teacher's embedding of the same text.

    Attributes:
        dimension: of the teacher's embeddings.
        weight: of the term in the loss.
    """

    dimension: int
    weight: float = 1.0


class EmbeddingMatching(nn.Module):
    """``mean of 1 - cos(M · e, z)`` over all queries and documents of the step, hard negatives included.

    e is the student's embedding, z the teacher's, M a learnt matrix that serves training alone (the linear
    map of jina-embeddings-v5, arXiv 2602.15547; over queries, positives and hard negatives alike as in
    EmbeddingGemma, arXiv 2509.20354). Distance by the cosine, for retrieval looks at directions only; the
    squared distance of the unit vectors would be twice it. Texts of which the teacher's embedding is
    unknown, and those whose own is zero and has no direction, are left out.

    Args:
        options: of the term.
        dimension: of the student's embeddings.

    Raises:
        UserError: a dimension below 1.
    """

    FIGURES = ("without_teacher_embedding",)

    def __init__(self, options: EmbeddingMatchingOptions, dimension: int) -> None:
        super().__init__()
        if options.dimension < 1:
            raise UserError(
                f"model.objective.embedding_matching.dimension is {options.dimension}; "
                "give the length of the teacher's embeddings"
            )
        self.options = options
        self.map = nn.Linear(dimension, options.dimension, bias=False)
        nn.init.orthogonal_(self.map.weight)  # it begins by keeping the student's angles

    def forward(self, step: StepEmbeddings, scale: Tensor) -> TermOutput:
        """The distance; figure: ``without_teacher_embedding``, share of texts left out.

        Raises:
            UserError: the batch has no teacher embeddings, or they are of another dimension.
        """
        students = torch.cat([step.queries, step.documents])
        teachers = torch.cat(self._teachers(step)).to(students.dtype)
        known = teachers.isfinite().all(1) & (teachers != 0).any(1) & (students.detach() != 0).any(1)
        # A teacher of ones where there is none: any will do that has a norm.
        distances = cosine_distances(self.map(students), teachers.masked_fill(~known.unsqueeze(1), 1.0))
        mean = mean_of(distances, known)
        return TermOutput(mean.value, {"without_teacher_embedding": mean.left_out})

    def _teachers(self, step: StepEmbeddings) -> tuple[Tensor, Tensor]:
        if step.teacher_queries is None or step.teacher_documents is None:
            raise UserError(
                "model.objective.embedding_matching needs the teacher's embeddings of queries and documents, "
                "and the batch has none; set data.options.teacher to a folder of them, or leave the term out"
            )
        found = step.teacher_queries.shape[1]
        if found != self.options.dimension:
            raise UserError(
                f"model.objective.embedding_matching.dimension is {self.options.dimension}, but the "
                f"teacher's embeddings have {found} dimensions; set it to {found}"
            )
        return step.teacher_queries, step.teacher_documents


def cosine_distances(left: Tensor, right: Tensor) -> Tensor:
    """(rows,) 1 - cos of the rows of two (rows, T) matrices; 1 where one of them is zero."""
    # From products and norms: copies made unit vectors would double what autograd keeps.
    norms = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
    return 1 - (left * right).sum(1) / norms.clamp(min=torch.finfo(left.dtype).tiny)
