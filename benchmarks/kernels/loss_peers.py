"""Implementations of InfoNCE on given embeddings: document i is the positive of query i."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.peers import HALVES, Peer
from benchmarks.kernels.shapes import Shape

STRIP_BYTES = 256 << 20
CHUNK_ROWS = 1024
SENTENCE_TRANSFORMERS_ROWS = 32
"""Default `mini_batch_size` of its cached losses."""


class Result(NamedTuple):
    """Loss and gradients; without gradients where they were not asked for."""

    loss: Tensor
    queries: Tensor | None
    documents: Tensor | None


Run = Callable[[Tensor, Tensor, float, bool], Result]
"""Called with queries, documents, scale, and whether gradients are wanted."""
LossFunction = Callable[[Tensor, Tensor, float], Tensor]


def by_autograd(function: LossFunction) -> Run:
    """Gradients by backward of a loss."""

    def run(queries: Tensor, documents: Tensor, scale: float, gradients: bool) -> Result:
        if not gradients:
            with torch.no_grad():
                return Result(function(queries, documents, scale), None, None)
        queries, documents = (x.detach().requires_grad_() for x in (queries, documents))
        loss = function(queries, documents, scale)
        loss.backward()
        return Result(loss.detach(), queries.grad, documents.grad)

    return run


def labels(queries: Tensor) -> Tensor:
    """The column of each row's positive."""
    return torch.arange(len(queries), device=queries.device)


def cross_entropy(queries: Tensor, documents: Tensor, scale: float) -> Tensor:
    """The usual lines; as under autocast, the logits have the inputs' type and the cross-entropy fp32."""
    return F.cross_entropy((queries @ documents.T * scale).float(), labels(queries))


def ours() -> Run:
    """`retrofit_kernels.info_nce`."""
    from retrofit_kernels import info_nce

    return by_autograd(lambda queries, documents, scale: info_nce(queries, documents, scale=scale).loss)


def three_gemms() -> Run:
    """The products alone, in strips: logits; with gradients also both products with the strip."""

    def run(queries: Tensor, documents: Tensor, scale: float, gradients: bool) -> Result:
        columns = len(documents)
        height = max(1, min(len(queries), STRIP_BYTES // (columns * queries.element_size())))
        if queries.device.type == "cpu":
            height = min(height, CHUNK_ROWS)
        strip = queries.new_empty(height, columns)
        to_queries, to_documents = torch.empty_like(queries), torch.zeros_like(documents)
        for begin in range(0, len(queries), height):
            rows = queries[begin : begin + height]
            torch.mm(rows, documents.T, out=strip[: len(rows)])
            if gradients:
                torch.mm(strip[: len(rows)], documents, out=to_queries[begin : begin + height])
                to_documents.addmm_(strip[: len(rows)].T, rows)
        return Result(strip[0, 0], to_queries, to_documents)

    return run


def compiled() -> Run:
    """torch.compile of the usual lines."""
    return by_autograd(torch.compile(cross_entropy))


def chunked() -> Run:
    """The usual lines on 1024 rows at a time, with backward after each: what GradCache does, in chunks."""

    def run(queries: Tensor, documents: Tensor, scale: float, gradients: bool) -> Result:
        queries, documents = (x.detach().requires_grad_(gradients) for x in (queries, documents))
        positives, total = labels(queries), torch.zeros((), device=queries.device)
        for begin in range(0, len(queries), CHUNK_ROWS):
            part = slice(begin, begin + CHUNK_ROWS)
            logits = (queries[part] @ documents.T * scale).float()
            loss = F.cross_entropy(logits, positives[part], reduction="sum") / len(queries)
            if gradients:
                loss.backward()
            total += loss.detach()
        return Result(total, queries.grad, documents.grad)

    return run


def sentence_transformers(similarity: str) -> Run:
    """The loss stage of CachedMultipleNegativesRankingLoss, on mini-batches that no encoder made.

    Args:
        similarity: "cos_sim", its default, which makes unit vectors of all documents again for every
            mini-batch, or "dot_score", which is enough for unit vectors.
    """
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    def run(queries: Tensor, documents: Tensor, scale: float, gradients: bool) -> Result:
        rows = len(queries)
        if len(documents) % rows:
            raise ValueError("it takes the same number of documents for each query")
        loss = CachedMultipleNegativesRankingLoss(
            torch.nn.Sequential(torch.nn.Identity()),
            scale=scale,
            similarity_fct=getattr(util, similarity),
            mini_batch_size=SENTENCE_TRANSFORMERS_ROWS,
        )
        columns = [
            [part.detach().requires_grad_(gradients) for part in column.split(SENTENCE_TRANSFORMERS_ROWS)]
            for column in (queries, *documents.split(rows))
        ]
        with torch.set_grad_enabled(gradients):
            value = loss.calculate_loss(columns, with_backward=gradients)
        if not gradients:
            return Result(value, None, None)
        made = [torch.cat([part.grad for part in column]) for column in columns]
        return Result(value, made[0], torch.cat(made[1:]))

    return run


def liger() -> Run:
    """Liger's fused linear and scaled cross-entropy; in plain torch chunks where it has no kernel."""
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction

    def loss(queries: Tensor, documents: Tensor, scale: float) -> Tensor:
        apply = LigerFusedLinearScaledCrossEntropyFunction.apply
        return apply(queries, documents, labels(queries), 1 / scale).mean()

    return by_autograd(loss)


def cut_cross_entropy() -> Run:
    """Apple's kernels on a GPU, its torch.compile version on a CPU."""
    from cut_cross_entropy import linear_cross_entropy

    def loss(queries: Tensor, documents: Tensor, scale: float) -> Tensor:
        kernel = "cce" if queries.is_cuda else "torch_compile"
        return linear_cross_entropy(queries * scale, documents, labels(queries), impl=kernel)

    return by_autograd(loss)


def quack() -> Run:
    """Quack's chunked linear cross-entropy with gradients in forward."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return by_autograd(
        lambda queries, documents, scale: chunked_linear_cross_entropy(
            queries * scale, documents, labels(queries)
        )
    )


def inf_cl() -> Run:
    """Inf-CL's flash loss, one direction."""
    from inf_cl import cal_flash_loss

    return by_autograd(
        lambda queries, documents, scale: cal_flash_loss(queries, documents, scale=scale).mean()
    )


def _gradients(shape: Shape, size: int) -> int:
    return (shape.rows + shape.columns) * shape.dimension * (size + 4)


def _matrix(shape: Shape, size: int) -> int:
    """Log-softmax, its gradient and that of the logits; half-precision logits come on top."""
    return shape.rows * shape.columns * (12 + (2 * size if size < 4 else 0)) + _gradients(shape, size)


def _strip(shape: Shape, size: int) -> int:
    return 4 * max(STRIP_BYTES, CHUNK_ROWS * shape.columns * 4) + _gradients(shape, size)


PEERS = (
    Peer("ours", "retrofit_kernels", ours, _strip),
    Peer("three_gemms", "the three products alone (limit)", three_gemms, _strip, limit=True),
    Peer("eager", "torch cross_entropy", lambda: by_autograd(cross_entropy), _matrix),
    Peer("compiled", "torch.compile", compiled, _matrix, compiled=True),
    Peer("chunked", f"torch in chunks of {CHUNK_ROWS} rows", chunked, _strip),
    Peer(
        "sentence_transformers",
        "sentence-transformers, cached loss stage, dot_score",
        lambda: sentence_transformers("dot_score"),
        _strip,
        module="sentence_transformers",
    ),
    Peer(
        "sentence_transformers_default",
        "the same, cos_sim (its default)",
        lambda: sentence_transformers("cos_sim"),
        _strip,
        module="sentence_transformers",
        normalises=True,
    ),
    Peer("liger", "Liger, scaled cross-entropy", liger, _strip, module="liger_kernel"),
    Peer(
        "cut_cross_entropy",
        "cut-cross-entropy",
        cut_cross_entropy,
        _matrix,
        module="cut_cross_entropy",
        compiled=True,
    ),
    Peer("quack", "quack", quack, _strip, module="quack", cuda_only=True, dtypes=HALVES, compiled=True),
    Peer("inf_cl", "Inf-CL", inf_cl, _strip, module="inf_cl", cuda_only=True, compiled=True),
)
BY_NAME = {peer.name: peer for peer in PEERS}
