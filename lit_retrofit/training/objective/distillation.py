"""Distillation of a teacher's ranking of each query's candidates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective.processes import mean_of
from lit_retrofit.training.objective.scored import scored_candidates
from lit_retrofit.training.objective.step import StepEmbeddings, TermOutput


@dataclass(frozen=True)
class DistillationOptions:
    """KL divergence from a teacher's distribution over a query's positive and own hard negatives.

    Attributes:
        weight: of the term in the loss.
        teacher_temperature: divides the teacher's scores: 1 for the logits of a cross-encoder; for a larger
            embedder's cosines what that model was trained with, 0.01 to 0.05.
        temperature: divides the student's similarities; by default the objective's, learnt or not.
    """

    weight: float = 1.0
    teacher_temperature: float = 1.0
    temperature: float | None = None


class Distillation(nn.Module):
    """``KL(teacher ‖ student)``, averaged over the queries that have scores.

    With t_c the teacher's score and s_c the student's similarity of candidate c, the positive or one of the
    query's own hard negatives: ``P = softmax(t / teacher_temperature)``, ``Q = softmax(s / temperature)`` and
    ``loss = Σ_c P_c · (log P_c - log Q_c)`` (Hinton et al., arXiv 1503.02531, without their factor T², for
    which the weight is there; for retrieval RocketQAv2, arXiv 2110.07367). Unknown scores are left out of
    both distributions.

    Raises:
        UserError: a temperature that is not above 0.
    """

    FIGURES = ("without_teacher", "unknown_scores")

    def __init__(self, options: DistillationOptions) -> None:
        super().__init__()
        for name in ("teacher_temperature", "temperature"):
            value = getattr(options, name)
            if value is not None and not value > 0:
                raise UserError(f"model.objective.distillation.{name} is {value}; it must be above 0")
        self.options = options

    def forward(self, step: StepEmbeddings, scale: Tensor) -> TermOutput:
        """The divergence; figures: ``without_teacher``, share of queries left out, and ``unknown_scores``.

        Raises:
            UserError: the batch has no hard negatives or no teacher scores.
        """
        found = scored_candidates(step, "distillation")
        own = self.options.temperature
        logits = found.similarities * scale if own is None else found.similarities / own
        losses = kl_divergence(found.scores / self.options.teacher_temperature, logits, found.known)
        mean = mean_of(losses, found.taught)
        figures = {"without_teacher": mean.left_out, "unknown_scores": found.unknown_scores}
        return TermOutput(mean.value, figures)


def kl_divergence(teacher: Tensor, student: Tensor, known: Tensor) -> Tensor:
    """(B,) Σ_c P_c · (log P_c - log Q_c) over the known candidates; 0 for a row without any.

    Args:
        teacher: (B, C) logits of P.
        student: (B, C) logits of Q.
        known: (B, C) bool.
    """
    # The lowest finite number: its P is 0, and 0 times it too, where -inf would make NaN.
    nothing = torch.finfo(student.dtype).min
    log_p, log_q = (torch.log_softmax(x.masked_fill(~known, nothing), dim=1) for x in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(1)
