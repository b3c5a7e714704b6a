"""InfoNCE over any number of negatives in the memory of a strip of logits: loss and gradients in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from retrofit_kernels._loss.arguments import check_contrastive, checked_positives
from retrofit_kernels._loss.operands import Documents, Operands, Queries, Settings
from retrofit_kernels._loss.operation import run
from retrofit_kernels._shared.backend import takes_triton
from retrofit_kernels._shared.checks import compute_dtype
from retrofit_kernels._shared.pairs import as_rows
from retrofit_kernels.options import ContrastiveOptions


class ContrastiveOutput(NamedTuple):
    """What `info_nce` returns.

    Attributes:
        loss: 0-d, or (B,) with reduction "none"; fp32 (fp64 for fp64 inputs).
        accuracy: 0-d, share of the positives that score above all documents that are negatives of their
            query, averaged over the queries; without gradient. Queries and documents that `query_to_query`,
            `document_to_document` and `both_directions` compare beyond that do not count.
        masked: 0-d int64, number of (query, document) pairs left out by an option, the queries' own positives
            not counted.
    """

    loss: Tensor
    accuracy: Tensor
    masked: Tensor


def info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    scale: float | Tensor,
    positives: Tensor | None = None,
    options: ContrastiveOptions | None = None,
) -> ContrastiveOutput:
    """InfoNCE: the cross-entropy of each query's positive among its positive and negatives.

    ``loss_i = -log( exp(s_ip) / (exp(s_ip) + Σ_{j negative} exp(s_ij)) )``, where s is
    ``scale · queries @ documents.T`` and p the positive (van den Oord et al., arXiv 1807.03748, eq. 4). Every
    document is a negative of every query, but for the own positives and what `options` leave out. With
    several positives the loss is the mean of theirs, and none is a negative for another. A query without
    negatives, as in a batch of one, has loss 0 and gradient 0: it learns nothing. So has an empty batch.

    The gradients come out of the forward pass, 6u FLOP in all (u = B·N·D multiply-adds), with O(strip × N)
    memory. Logits and softmax are fp32 for fp16, bf16 and fp32 inputs (also under autocast), fp64 for fp64.
    At any temperature the result is as exact as the similarities are: fp32 embeddings on a GPU are multiplied
    in tf32 unless `options.precision` says otherwise, but positives exactly. If tf32 cuts numbers off, a
    negative of cosine 0.6 counts 2 % too little at temperature 0.02, and 8 % at 0.005. Only where the logits
    of two positives of one query differ by more than 80, the lower one's share in the gradient is not exact.
    There is no second derivative.

    Args:
        queries: (B, D) floating point; not normalised here, unless `options.prefixes` are set.
        documents: (N, D), of the same dtype and device.
        scale: inverse temperature, a number or a 0-d tensor, which may require a gradient; from 2^-24 to
            2^24 (fp64 inputs: 2^-900 to 2^900), which is right for unit vectors: of longer embeddings, scale
            times both lengths is what counts. A tensor on a GPU is not checked: that would wait for it.
        positives: (B,) or (B, P) int64, the documents (rows) that answer query i, one or more; -1 is
            padding. By default document i.
        options: masks, further negatives, weights, reduction, memory.

    Returns:
        The loss and, without gradient, accuracy and number of masked pairs.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, device or value.
    """
    options = ContrastiveOptions() if options is None else options
    check_contrastive(queries, documents, scale, options)
    answers = checked_positives(positives, queries, documents)
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=compute_dtype(queries.dtype), device=queries.device)
    own, right = operands_of(queries, documents, answers, options)
    operands = Operands(own, right, own, scale, options.weights)
    return ContrastiveOutput(*run(operands, settings_of(queries, options)))


def operands_of(
    queries: Tensor, documents: Tensor, positives: Tensor, options: ContrastiveOptions
) -> tuple[Queries, Documents]:
    """The tensors of the options beside the embeddings that they belong to."""
    ids = options.query_ids, options.document_ids
    guide = options.guide
    return (
        Queries(
            queries,
            positives,
            None if ids[0] is None else as_rows(ids[0]),
            options.query_groups,
            None if guide is None else guide.queries.detach(),
        ),
        Documents(
            documents,
            None if ids[1] is None else as_rows(ids[1]),
            options.document_groups,
            options.owners,
            None if guide is None else guide.documents.detach(),
        ),
    )


def settings_of(queries: Tensor, options: ContrastiveOptions) -> Settings:
    """What is not a tensor in the options, with the backend chosen."""
    prefixes = options.prefixes or (queries.shape[1],)
    backend = options.backend
    if backend == "auto":
        backend = "triton" if takes_triton(queries) else "torch"
    return Settings(
        first_query=0,
        false_negatives=options.false_negatives,
        guide_threshold=None if options.guide is None else options.guide.threshold,
        query_to_query=options.query_to_query,
        document_to_document=options.document_to_document,
        both_directions=options.both_directions,
        hardness=options.hardness,
        focal=options.focal,
        prefixes=prefixes,
        prefix_weights=options.prefix_weights or (1.0,) * len(prefixes),
        renormalise=options.prefixes is not None,
        reduction=options.reduction,
        precision=options.precision,
        strip_bytes=options.strip_bytes,
        backend=backend,
    )
