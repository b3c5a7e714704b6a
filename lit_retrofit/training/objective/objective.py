"""The sum of the terms, and the temperature that they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective.contrastive import InfoNCE, InfoNCEOptions
from lit_retrofit.training.objective.distillation import Distillation, DistillationOptions
from lit_retrofit.training.objective.embedding_matching import EmbeddingMatching, EmbeddingMatchingOptions
from lit_retrofit.training.objective.margin_mse import MarginMSE, MarginMSEOptions
from lit_retrofit.training.objective.spread_out import SpreadOut, SpreadOutOptions
from lit_retrofit.training.objective.step import StepEmbeddings, TermOutput


@dataclass(frozen=True)
class ObjectiveOptions:
    """The terms of the loss, each with its weight. A term that is not set, or of weight 0, costs nothing.

    Attributes:
        temperature: divides the cosine similarities; 0.02 in the retrofit paper (arXiv 2510.14274).
        learn_temperature: train it along (as in CLIP, arXiv 2103.00020), starting from `temperature`.
        info_nce: the contrastive loss.
        distillation: KL divergence from a teacher's scores.
        margin_mse: squared error against a teacher's margins.
        embedding_matching: cosine distance to a teacher's embeddings.
        spread_out: squared similarity of different texts.
    """

    temperature: float = 0.02
    learn_temperature: bool = False
    info_nce: InfoNCEOptions = field(default_factory=InfoNCEOptions)
    distillation: DistillationOptions | None = None
    margin_mse: MarginMSEOptions | None = None
    embedding_matching: EmbeddingMatchingOptions | None = None
    spread_out: SpreadOutOptions | None = None


@dataclass(frozen=True, eq=False)
class ObjectiveOutput:
    """What `Objective` returns, of the batch that all processes make.

    Attributes:
        loss: 0-d, the weighted sum. The same number on all processes, whose gradients are to be added up:
            where they are averaged, as DistributedDataParallel does, multiply it by the number of processes.
        figures: 0-d tensors to log, without gradient: each term's value before its weight under the term's
            name, the ``temperature`` in effect, and the terms' own: ``accuracy`` and ``masked_pairs``
            (info_nce), ``without_teacher`` and ``unknown_scores`` (distillation, margin_mse),
            ``without_teacher_embedding`` (embedding_matching).
    """

    loss: Tensor
    figures: dict[str, Tensor]


class Objective(nn.Module):
    """The weighted sum of the configured terms.

    All of it is computed in the embeddings' own type, also under autocast: cosines near 1 are 0.004 apart in
    bf16, at temperature 0.02 a fifth of a logit.

    Args:
        options: the terms.
        dimension: of the embeddings.

    Raises:
        UserError: an option's value that cannot be, or nothing to train on.
    """

    def __init__(self, options: ObjectiveOptions, dimension: int) -> None:
        super().__init__()
        if not options.temperature > 0:
            raise UserError(f"model.objective.temperature is {options.temperature}; it must be above 0")
        # The logarithm keeps a learnt temperature positive.
        log_scale = torch.tensor(-math.log(options.temperature))
        self.log_scale = nn.Parameter(log_scale, requires_grad=options.learn_temperature)
        terms = _terms(options, dimension)
        if options.learn_temperature and not _use_the_temperature(terms):
            raise UserError(
                "model.objective.learn_temperature is on, but no term uses that temperature; turn it off"
            )
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: getattr(options, name).weight for name in terms}

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what `forward` returns to be logged."""
        of_terms = (figure for name, term in self.terms.items() for figure in (name, *term.FIGURES))  # type: ignore[misc]
        return tuple(dict.fromkeys(("temperature", *of_terms)))

    @property
    def temperature(self) -> float:
        """Its present value."""
        return math.exp(-self.log_scale.item())

    def forward(self, step: StepEmbeddings) -> ObjectiveOutput:
        """The loss of one step.

        Raises:
            UserError: the batch lacks what a term needs, or has a temperature while one is learnt.
        """
        with torch.autocast(step.queries.device.type, enabled=False):
            scale = self._scale(step)
            outputs: dict[str, TermOutput] = {n: term(step, scale) for n, term in self.terms.items()}
            loss = step.queries.new_zeros(())
            for name, output in outputs.items():
                loss = loss + self.weights[name] * output.value
        figures = {"temperature": 1 / scale.detach()}
        for name, output in outputs.items():
            figures |= {name: output.value.detach(), **output.figures}
        return ObjectiveOutput(loss, figures)

    def _scale(self, step: StepEmbeddings) -> Tensor:
        if step.temperature is None:
            return self.log_scale.exp()
        if self.log_scale.requires_grad:
            raise UserError(
                f"a batch has its own temperature, {step.temperature:g}, which "
                "model.objective.learn_temperature would not train; turn one of them off"
            )
        return torch.full_like(self.log_scale, 1 / step.temperature)


def _terms(options: ObjectiveOptions, dimension: int) -> dict[str, nn.Module]:
    """The terms in use, in the order of the options."""
    makers: dict[str, Callable[..., nn.Module]] = {
        "info_nce": partial(InfoNCE, dimension=dimension),
        "distillation": Distillation,
        "margin_mse": MarginMSE,
        "embedding_matching": partial(EmbeddingMatching, dimension=dimension),
        "spread_out": SpreadOut,
    }
    terms = {}
    for name, make in makers.items():
        part = getattr(options, name)
        if part is None:
            continue
        if not 0 <= part.weight < math.inf:
            raise UserError(f"model.objective.{name}.weight is {part.weight}; it must be 0 or more")
        if part.weight:
            terms[name] = make(part)
    if not terms:
        raise UserError("model.objective has no term; set info_nce.weight above 0, or another term")
    return terms


def _use_the_temperature(terms: dict[str, nn.Module]) -> bool:
    distillation = terms.get("distillation")
    return "info_nce" in terms or (
        isinstance(distillation, Distillation) and distillation.options.temperature is None
    )
