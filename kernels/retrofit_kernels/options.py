"""What `info_nce` may be told beyond its operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Reduction = Literal["mean", "sum", "none"]
Backend = Literal["auto", "torch", "triton"]
Precision = Literal["tf32", "tf32x3", "ieee"]
Rule = Literal["absolute", "margin", "percentage"]


@dataclass(frozen=True)
class Threshold:
    """The similarity above which a candidate is taken for a false negative and left out.

    Similarities are inner products before scaling: cosines, for unit vectors. Where a query has several
    positives, the lowest of them counts. The own positives are never left out.

    Limits that depend on the positive's similarity are exceeded by more than rounding only: at D dimensions,
    by (D + 8) · 2^-22 of the product of both lengths ((D + 8) · 2^-51 in fp64; 2^-9 more where a GPU
    multiplies fp32 in tf32). So a duplicate of the positive is a negative with a margin of 0, always.

    Attributes:
        value: the number that `rule` speaks of.
        rule: "absolute": above `value`. "margin": above the positive's similarity plus `value` (Qwen3
            Embedding, arXiv 2506.05176: 0.1; GISTEmbed, arXiv 2402.16829, with a guide: 0). "percentage":
            above `value` times the positive's similarity (NV-Retriever, arXiv 2407.15831: 0.95); for
            positives at or below 0, where a percentage means nothing, above the positive's similarity plus
            `value` - 1.
    """

    value: float
    rule: Rule = "margin"


@dataclass(frozen=True, eq=False)
class Guide:
    """A second model whose similarities tell the false negatives (GISTEmbed, arXiv 2402.16829).

    Attributes:
        queries: (B, G) floating point, the guide's embeddings of the queries; without gradient.
        documents: (N, G), of the same dtype.
        threshold: a candidate whose guide similarity is above it is left out.
    """

    queries: Tensor
    documents: Tensor
    threshold: Threshold = Threshold(0.0, "margin")


@dataclass(frozen=True, eq=False)
class ContrastiveOptions:
    """What `info_nce` may be told beyond its operands. An option that is not set costs nothing.

    Attributes:
        query_ids: (B,) or (B, P) int64, ids of all documents known to answer each query; -1 is padding. A
            document whose id is among them is no negative of the query. Comes together with `document_ids`.
        document_ids: (N,) int64.
        query_groups: (B,) int64; only documents of its own group (task, language) are a query's negatives.
            Comes together with `document_groups`.
        document_groups: (N,) int64.
        owners: (N,) int64, the only query (row) that sees the document as a negative, or -1 for a document
            that all queries see: private hard negatives.
        false_negatives: leave out candidates that are too similar to the query.
        guide: leave out candidates that another model finds too similar to the query.
        query_to_query: the other queries are negatives too (GTE, arXiv 2308.03281).
        document_to_document: what is similar to the positive is a negative too (GTE).
        both_directions: the mean of this loss and of that of finding the query for its positive, as in CLIP
            (arXiv 2103.00020). The second part sees the queries as negatives, and no private documents; it
            costs 6·B²·D further multiply-adds. `query_to_query`, `document_to_document` and `hardness` are
            of the first part alone.
        hardness: negatives count exp(hardness · similarity) times, without gradient through the weight
            (EmbeddingGemma, arXiv 2509.20354: 5). At most as large as the scale may be.
        focal: each loss is multiplied by (1 - p)^focal, p the positive's probability, with gradient through
            the factor (Lin et al., arXiv 1708.02002, eq. 4; KaLM-V2, arXiv 2506.20923: 0.5).
        prefixes: ascending dimensions up to D. The loss is then the weighted sum of the losses of the
            embeddings cut to each of them and made unit vectors (Matryoshka, arXiv 2205.13147, eq. 1), from
            one pass over the similarities.
        prefix_weights: one weight ≥ 0 for each of the prefixes; all one by default.
        weights: (B,) weight ≥ 0 of each query's loss, without gradient. "mean" divides by their sum.
        reduction: "mean" or "sum" over the queries, or "none" for one loss per query. "none" makes the logits
            twice (8u FLOP instead of 6u), for its row weights are known only in backward.
        precision: how fp32 embeddings are multiplied on a GPU: "tf32" (negatives err by some percent at low
            temperatures, see the README's limits), "tf32x3" or "ieee" (exact fp32); the gradients' products
            in tf32 or, with the two others, exactly. A CPU multiplies them exactly.
            ``torch.set_float32_matmul_precision`` changes nothing here.
        strip_bytes: memory budget of one strip of logits, in bytes; at least one row is held. A CPU takes
            128 MiB and 1024 rows at most, for higher strips are no faster there. Plain torch works on a strip
            in tiles of 8 MiB on a CPU and 32 MiB on a GPU, of which up to four are held beside it.
        check_finite: refuse embeddings with infinite values or NaN, the guide's too, which costs a pass over
            them and, on a GPU, waits for it. It decides by values: torch.compile breaks the graph there, or
            with ``fullgraph=True`` fails.
        backend: "auto" takes Triton on GPUs of compute capability 8.0 or more, for all but fp64, else torch.
    """

    query_ids: Tensor | None = None
    document_ids: Tensor | None = None
    query_groups: Tensor | None = None
    document_groups: Tensor | None = None
    owners: Tensor | None = None
    false_negatives: Threshold | None = None
    guide: Guide | None = None
    query_to_query: bool = False
    document_to_document: bool = False
    both_directions: bool = False
    hardness: float = 0.0
    focal: float = 0.0
    prefixes: tuple[int, ...] | None = None
    prefix_weights: tuple[float, ...] | None = None
    weights: Tensor | None = None
    reduction: Reduction = "mean"
    precision: Precision = "tf32"
    strip_bytes: int = 256 << 20
    check_finite: bool = False
    backend: Backend = "auto"
