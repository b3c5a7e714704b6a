"""What the terms read, and what each of them returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

PADDING = -1
"""The column that is none."""


@dataclass(frozen=True, eq=False)
class StepEmbeddings:
    """One step's embeddings on this process, and what is known about them: tensors only.

    Columns are rows of `documents`. None is what the whole run does without; what some of its batches or rows
    lack is padded with -1 (columns) or NaN (what a teacher says), so that all processes do the same.

    Attributes:
        queries: (B, D) fp32 (or fp64), unit vectors where similarities are to be cosines.
        documents: (N, D) of the same dtype: every query's positive and all hard negatives, each once.
        positives: (B,) int64, the column of the document that answers each query.
        known_positives: (B, P) int64, columns of all documents known to answer it, padded with -1: never its
            negatives.
        negatives: (B, K) int64, columns of each query's own hard negatives, padded with -1.
        teacher_scores: (B, 1 + K) floating point, a teacher's scores of the positive and of `negatives`, in
            this order; NaN where unknown.
        teacher_queries: (B, T) floating point, a teacher's embeddings; a row of NaN where unknown.
        teacher_documents: (N, T), likewise.
        owners: (N,) int64, the one query that sees the document as a negative, or -1 for all queries: private
            hard negatives. Always obeyed.
        query_groups: (B,) int64; a query sees documents of its own group alone. Comes together with
            `document_groups`, and is always obeyed.
        document_groups: (N,) int64.
        known_ids: (B, P') int64, ids of all documents known to answer the query, padded with -1, whichever
            process holds them. Comes together with `document_ids`. Needed under several processes only,
            where one process's positive may be a negative of another; without ids it is taken for one.
        document_ids: (N,) int64, ids that are the same for the same document on all processes.
        temperature: the batch's own, in place of the configured one.
    """

    queries: Tensor
    documents: Tensor
    positives: Tensor
    known_positives: Tensor
    negatives: Tensor | None = None
    teacher_scores: Tensor | None = None
    teacher_queries: Tensor | None = None
    teacher_documents: Tensor | None = None
    owners: Tensor | None = None
    query_groups: Tensor | None = None
    document_groups: Tensor | None = None
    known_ids: Tensor | None = None
    document_ids: Tensor | None = None
    temperature: float | None = None


@dataclass(frozen=True, eq=False)
class TermOutput:
    """What a term returns, of the batch that all processes make.

    Attributes:
        value: 0-d, before its weight. The same number on all processes; its gradient is by this process's
            embeddings, so that a shared parameter's gradient is the SUM over the processes.
        figures: further 0-d tensors to log, by name, without gradient.
    """

    value: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)
