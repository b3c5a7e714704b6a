"""A regulariser that spreads embeddings over the sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_retrofit.training.objective.processes import add_up
from lit_retrofit.training.objective.step import StepEmbeddings, TermOutput


@dataclass(frozen=True)
class SpreadOutOptions:
    """Squared similarity of different texts.

    Attributes:
        weight: of the term in the loss.
    """

    weight: float = 1.0


class SpreadOut(nn.Module):
    """The mean of ``<e_i, e_j>²`` over all pairs i ≠ j of queries, plus that over all pairs of documents.

    The second moment of the global orthogonal regulariser (Zhang et al., arXiv 1708.06320), which
    EmbeddingGemma (arXiv 2509.20354) takes for queries and for documents. Of points spread evenly over the
    sphere it is 1/D, and the mean similarity, their first moment, is 0; the second bounds the first
    (Jensen), so that it serves for both.

    Pairs are those of the whole batch, across processes too: with G = Σ_i e_i e_iᵀ (D × D), which adds up
    over processes, ``Σ_{i≠j} <e_i, e_j>² = ‖G‖² - Σ_i ‖e_i‖⁴``: 2·N·D² FLOP, no N × N matrix, and no
    embeddings to gather. A text that two processes hold counts as two.
    """

    FIGURES = ()

    def __init__(self, options: SpreadOutOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, step: StepEmbeddings, scale: Tensor) -> TermOutput:
        """The sum of both sides; no figures. A side of one text has nothing to spread and counts 0."""
        return TermOutput(mean_squared_similarity(step.queries) + mean_squared_similarity(step.documents))


def mean_squared_similarity(embeddings: Tensor) -> Tensor:
    """0-d mean of ``<e_i, e_j>²`` over the pairs i ≠ j of all processes' (N, D) embeddings."""
    dimension = embeddings.shape[1]
    parts = [
        (embeddings.T @ embeddings).flatten(),
        embeddings.square().sum(1).square().sum().unsqueeze(0),
        embeddings.new_full((1,), len(embeddings)),
    ]
    gram, own, count = add_up(torch.cat(parts)).split([dimension**2, 1, 1])
    pairs = (count * (count - 1)).detach().clamp(min=1)
    return ((gram.square().sum() - own) / pairs).squeeze(0)
