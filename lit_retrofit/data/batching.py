"""What a training step gets: its texts in micro-batches by token budget, and what answers what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

Role = Literal["query", "document"]


class Pads(Protocol):
    """What padding needs to know of a tokenizer."""

    @property
    def pad_id(self) -> int:
        """The id that fills a row up to the length of its micro-batch."""
        ...


class Tokenize(Protocol):
    """Turns texts into token ids, with the prompt and the length limit of their role."""

    def of(self, role: Role) -> Pads:
        """The tokenizer of a role's encoder: one object for both roles where one encoder does for both."""
        ...

    def __call__(
        self,
        texts: Sequence[str],
        role: Role,
        max_length: int | None = None,
        prompt: str | None = None,
    ) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded, cut to the role's or this length.

        The prompt, where one is given, takes the place of the role's.
        """
        ...


# The batches are not frozen: Lightning rebuilds them field by field for some precisions.
@dataclass
class TokenBatch:
    """A micro-batch: texts of similar length, padded to the longest.

    Attributes:
        input_ids: (texts, length) int64.
        attention_mask: (texts, length) int64, 1 for a token.
        rows: (texts,) int64, where each embedding goes among the step's texts.
        role: whose encoder the texts are for; None where one does for both.
    """

    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    role: Role | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenBatch:
        """The same micro-batch on another device."""
        ids, mask, rows = (
            part.to(device, non_blocking=non_blocking)
            for part in (self.input_ids, self.attention_mask, self.rows)
        )
        return TokenBatch(ids, mask, rows, self.role)


@dataclass
class RetrievalBatch:
    """Everything one training step needs of one device's queries.

    The optional fields are None where nothing asks for them. Groups, temperature and the teacher's embeddings
    are there on all devices or on none.

    Attributes:
        micro_batches: the step's unique texts, longest first.
        texts: how many unique texts there are; with two encoders, a query and a document are never one.
        query_rows: (queries,) int64, the text of each query.
        document_rows: (documents,) int64, the text of each document.
        positives: (queries,) int64, the column of each query's positive among the documents.
        known_positives: (queries, most) int64, columns of all documents known to answer the query,
            padded with -1: never negatives for it.
        record_ids: which records these are, for reports.
        document_ids: (documents,) int64, a hash of each document's tokens: the same on all devices.
        known_ids: (queries, most) int64, the ids of all documents of the step known to answer the query,
            other devices' documents included, padded with -1.
        negatives: (queries, most) int64, columns of the hard negatives drawn for each query, without those
            known to answer it, padded with -1. None where no query has any.
        teacher_scores: (queries, 1 + most) float32, the records' scores of the positive and of `negatives`,
            NaN where unknown. None where no record has any.
        query_groups: (queries,) int64; only documents of the query's own group are its negatives. The same on
            all devices. A query without in-batch negatives has a group of its own.
        document_groups: (documents,) int64, together with `query_groups`. A text that belongs to several
            groups is a document, a column, in each, embedded once.
        temperature: of the batch's source, where it has its own.
        teacher_queries: (queries, T) float32, another model's embeddings.
        teacher_documents: (documents, T) float32.
    """

    micro_batches: tuple[TokenBatch, ...]
    texts: int
    query_rows: Tensor
    document_rows: Tensor
    positives: Tensor
    known_positives: Tensor
    record_ids: tuple[str, ...]
    document_ids: Tensor | None = None
    known_ids: Tensor | None = None
    negatives: Tensor | None = None
    teacher_scores: Tensor | None = None
    query_groups: Tensor | None = None
    document_groups: Tensor | None = None
    temperature: float | None = None
    teacher_queries: Tensor | None = None
    teacher_documents: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RetrievalBatch:
        """The same batch on another device."""
        moved = replace(self, micro_batches=tuple(p.to(device, non_blocking) for p in self.micro_batches))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(moved, field.name, value.to(device, non_blocking=non_blocking))
        return moved

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(int(micro_batch.attention_mask.sum()) for micro_batch in self.micro_batches)

    @property
    def padded_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return sum(micro_batch.input_ids.numel() for micro_batch in self.micro_batches)


def make_micro_batches(
    tokens: Sequence[Sequence[int]], pad_id: int, token_budget: int, role: Role | None = None, first: int = 0
) -> tuple[TokenBatch, ...]:
    """Sorts texts by length, longest first, and cuts them where padded tokens would pass the budget.

    A text less than half as long as the longest of its micro-batch starts a new one too: a step of short
    queries and long documents would otherwise compute padding for almost half of its tokens. The longest
    come first so that a budget that does not fit in memory fails at once. A single text longer than the
    budget gets a micro-batch of its own. Rows count from `first`; `role` says whose encoder they are for.
    """
    order = sorted(range(len(tokens)), key=lambda row: (-len(tokens[row]), row))
    cuts: list[list[int]] = []
    longest = 0
    for row in order:
        length = max(1, len(tokens[row]))
        if not cuts or (len(cuts[-1]) + 1) * longest > token_budget or 2 * length < longest:
            cuts.append([])
            longest = length
        cuts[-1].append(row)
    padded = (_pad([tokens[row] for row in rows], pad_id) for rows in cuts)
    return tuple(
        TokenBatch(*of_rows, torch.tensor(rows) + first, role)
        for of_rows, rows in zip(padded, cuts, strict=True)
    )


def _pad(tokens: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(ids) for ids in tokens])
    width = max(1, int(lengths.max()))
    mask = torch.arange(width)[None] < lengths[:, None]
    input_ids = torch.full((len(tokens), width), pad_id)
    input_ids[mask] = torch.tensor([i for ids in tokens for i in ids], dtype=torch.long)
    return input_ids, mask.long()
