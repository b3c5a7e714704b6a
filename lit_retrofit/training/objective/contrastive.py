"""InfoNCE, with the options of `retrofit_kernels`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from retrofit_kernels import ContrastiveOptions, Guide, Threshold, distributed_info_nce, info_nce
from retrofit_kernels.options import Backend, Precision
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from lit_retrofit.errors import UserError
from lit_retrofit.training.objective.processes import (
    anywhere,
    held_before,
    process_count,
    process_rank,
    widest,
)
from lit_retrofit.training.objective.step import PADDING, StepEmbeddings, TermOutput

_NOBODYS = torch.iinfo(torch.int64).min
"""A group that no query is in."""
_MIX = 0x5851F42D4C957F2D
"""Odd: multiplied by it, modulo 2^64, no two ids become one (Knuth's MMIX)."""


@dataclass(frozen=True)
class InfoNCEOptions:
    """InfoNCE over in-batch and hard negatives. An option that is not set costs nothing.

    Attributes:
        weight: of the term in the loss; 0 leaves it out.
        false_negatives: leave out candidates that the model itself finds too similar to the query.
        guide: leave out candidates that the teacher's embeddings find too similar to the query: GISTEmbed.
        query_to_query: the other queries are negatives too (GTE, arXiv 2308.03281).
        document_to_document: what is similar to the positive is a negative too (GTE).
        both_directions: the mean with the loss of finding the query for its positive (CLIP, arXiv
            2103.00020).
        hardness: negatives count exp(hardness · similarity) times (EmbeddingGemma, arXiv 2509.20354: 5).
        focal: each query's loss is multiplied by (1 - p)^focal, p the positive's probability (KaLM-V2, arXiv
            2506.20923: 0.5).
        prefixes: ascending dimensions, for instance [64, 128, 256, 384]: the weighted sum of the losses of
            the embeddings cut to each of them (Matryoshka, arXiv 2205.13147). Name the full one too.
        prefix_weights: one for each of the prefixes; all one by default.
        precision: how fp32 embeddings are multiplied on a GPU: "ieee" is exact, "tf32" fast.
        strip_bytes: memory for a strip of logits; the loss never holds B × N of them.
        backend: "auto" takes Triton where the GPU can, else torch.
    """

    weight: float = 1.0
    false_negatives: Threshold | None = None
    guide: Threshold | None = None
    query_to_query: bool = False
    document_to_document: bool = False
    both_directions: bool = False
    hardness: float = 0.0
    focal: float = 0.0
    prefixes: tuple[int, ...] | None = None
    prefix_weights: tuple[float, ...] | None = None
    precision: Precision = "tf32"
    strip_bytes: int = 256 << 20
    backend: Backend = "auto"


class InfoNCE(nn.Module):
    """``loss_i = -log( exp(s_ip) / (exp(s_ip) + Σ_{j negative} exp(s_ij)) )``, averaged over the queries.

    s is the similarity over the temperature, p the positive (van den Oord et al., arXiv 1807.03748, eq. 4).
    Every document of the step, on whichever process, is a negative of every query, but for those known to
    answer it and what options and batch leave out. `retrofit_kernels.ContrastiveOptions` defines each option.

    Args:
        options: of the term.
        dimension: of the embeddings.

    Raises:
        UserError: an option's value that cannot be.
    """

    FIGURES = ("accuracy", "masked_pairs")

    def __init__(self, options: InfoNCEOptions, dimension: int) -> None:
        super().__init__()
        self.options = options
        row = torch.ones(1, dimension)
        try:  # the loss checks its options itself: on one pair, before anything slow begins
            guide = None if options.guide is None else Guide(row, row, options.guide)
            info_nce(row, row, scale=1.0, options=ContrastiveOptions(guide=guide, **self._settings()))
        except (TypeError, ValueError) as error:
            raise UserError(f"model.objective.info_nce: {error}") from error

    def forward(self, step: StepEmbeddings, scale: Tensor) -> TermOutput:
        """The loss; figures: ``accuracy``, share of positives above all negatives, and ``masked_pairs``.

        Raises:
            UserError: a guide is asked for, and the batch has no teacher embeddings.
        """
        known_ids, document_ids = identities(step)
        query_groups, document_groups = groups(step, document_ids)
        options = ContrastiveOptions(
            query_ids=known_ids,
            document_ids=document_ids,
            query_groups=query_groups,
            document_groups=document_groups,
            owners=step.owners,
            guide=self._guide(step),
            **self._settings(),
        )
        function = info_nce if process_count() == 1 else distributed_info_nce
        output = function(
            step.queries, step.documents, scale=scale, positives=step.positives, options=options
        )
        return TermOutput(output.loss, {"accuracy": output.accuracy, "masked_pairs": output.masked.float()})

    def _settings(self) -> dict[str, Any]:
        """The options that the loss has under the same names."""
        own = {"weight", "guide"}
        return {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name not in own}

    def _guide(self, step: StepEmbeddings) -> Guide | None:
        if self.options.guide is None:
            return None
        if step.teacher_queries is None or step.teacher_documents is None:
            raise UserError(
                "model.objective.info_nce.guide needs the teacher's embeddings of queries and documents, and "
                "the batch has none; set data.options.teacher to a folder of them, or let the model itself "
                "judge by info_nce.false_negatives"
            )
        # Of an unknown embedding all cosines are NaN: above no threshold, so that nothing is left out.
        embeddings = (step.teacher_queries, step.teacher_documents)
        queries, documents = (normalize(e.to(step.queries.dtype), dim=1) for e in embeddings)
        return Guide(queries, documents, self.options.guide)


def identities(step: StepEmbeddings) -> tuple[Tensor, Tensor]:
    """(B, P) ids of the documents that answer each query, and (N,) of the documents, for all processes.

    Without ids of its own the batch's columns serve, made different on each process.
    """
    if step.known_ids is not None and step.document_ids is not None:
        known, ids = step.known_ids, step.document_ids
    else:
        count, rank = process_count(), process_rank()
        columns = torch.arange(len(step.documents), device=step.documents.device)
        ids = columns * count + rank
        known = torch.where(step.known_positives == PADDING, PADDING, step.known_positives * count + rank)
    return pad(known, (0, widest(known.shape[1], known.device) - known.shape[1]), value=PADDING), ids


def groups(step: StepEmbeddings, document_ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(B,) and (N,) groups in which a document that several processes hold is a negative once, as on one.

    The copies of higher rank join a group without queries; they stay the positives that they are.
    """
    queries, documents = step.query_groups, step.document_groups
    if process_count() == 1 or step.document_ids is None:
        return queries, documents
    inside = torch.zeros_like(document_ids) if documents is None else documents
    copies = held_before(document_ids * _MIX + inside)  # the same document in another group is another one
    if not anywhere(copies.any()):
        return queries, documents
    if queries is None:
        queries = torch.zeros(len(step.queries), dtype=torch.int64, device=inside.device)
    return queries, inside.masked_fill(copies, _NOBODYS)
