"""Distillation of a teacher's margins between positive and negatives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective.processes import mean_of
from lit_retrofit.training.objective.scored import scored_candidates
from lit_retrofit.training.objective.step import StepEmbeddings, TermOutput


@dataclass(frozen=True)
class MarginMSEOptions:
    """Squared error of the margins between a query's positive and each of its own hard negatives.

    Attributes:
        weight: of the term in the loss.
        teacher_scale: multiplies the teacher's scores. Margins of cosines lie within -2 and 2: 1 for scores
            that are cosines too, about 0.05 for a cross-encoder's logits, whose margins reach 20.
    """

    weight: float = 1.0
    teacher_scale: float = 1.0


class MarginMSE(nn.Module):
    """``mean of ((s⁺ - s⁻) - teacher_scale · (t⁺ - t⁻))²`` over all pairs of a query and a negative.

    s is the student's similarity, t the teacher's score (Hofstätter et al., arXiv 2010.02666). Pairs of
    which a score is unknown are left out.

    Raises:
        UserError: the scale is not above 0.
    """

    FIGURES = ("without_teacher", "unknown_scores")

    def __init__(self, options: MarginMSEOptions) -> None:
        super().__init__()
        if not options.teacher_scale > 0:
            raise UserError(
                f"model.objective.margin_mse.teacher_scale is {options.teacher_scale}; it must be above 0"
            )
        self.options = options

    def forward(self, step: StepEmbeddings, scale: Tensor) -> TermOutput:
        """The error; figures: ``without_teacher``, share of queries left out, and ``unknown_scores``.

        Raises:
            UserError: the batch has no hard negatives or no teacher scores.
        """
        found = scored_candidates(step, "margin_mse")
        errors = margins(found.similarities) - margins(found.scores) * self.options.teacher_scale
        taught = found.taught
        figures = {
            "without_teacher": mean_of(errors.new_zeros(len(taught)), taught).left_out,
            "unknown_scores": found.unknown_scores,
        }
        return TermOutput(mean_of(errors.square(), found.known[:, 1:]).value, figures)


def margins(scores: Tensor) -> Tensor:
    """(B, K) what the first of (B, 1 + K) scores has more than each of the others."""
    return scores[:, :1] - scores[:, 1:]
