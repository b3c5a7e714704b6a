"""The training objective over one step's embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from retrofit_kernels import ContrastiveOptions, ContrastiveOutput, info_nce
from torch import Tensor, nn

from lit_retrofit.errors import UserError


@dataclass(frozen=True)
class ObjectiveOptions:
    """InfoNCE over in-batch and hard negatives.

    Attributes:
        temperature: divides the cosine similarities; 0.02 in the retrofit paper (arXiv 2510.14274).
        learn_temperature: train it along (as in CLIP, arXiv 2103.00020), starting from `temperature`.
    """

    temperature: float = 0.02
    learn_temperature: bool = False


class ContrastiveObjective(nn.Module):
    """InfoNCE (van den Oord et al., arXiv 1807.03748), without known positives among the negatives.

    Raises:
        UserError: the temperature is not above 0.
    """

    def __init__(self, options: ObjectiveOptions) -> None:
        super().__init__()
        if not options.temperature > 0:
            raise UserError(f"model.objective.temperature is {options.temperature}; it must be above 0")
        # The logarithm keeps a learnt temperature positive.
        log_scale = torch.tensor(-math.log(options.temperature))
        self.log_scale = nn.Parameter(log_scale, requires_grad=options.learn_temperature)

    @property
    def temperature(self) -> float:
        """Its present value."""
        return math.exp(-self.log_scale.item())

    def forward(
        self, queries: Tensor, documents: Tensor, positives: Tensor, known_positives: Tensor
    ) -> ContrastiveOutput:
        """The loss of one step.

        Args:
            queries: (queries, dimension).
            documents: (documents, dimension): every query's positive and all hard negatives, each once.
            positives: (queries,) int64, the document that answers each query.
            known_positives: (queries, most) int64, further documents that answer it, padded with -1.
        """
        columns = torch.arange(len(documents), device=documents.device)
        options = ContrastiveOptions(query_ids=known_positives, document_ids=columns)
        return info_nce(queries, documents, scale=self.log_scale.exp(), positives=positives, options=options)
