"""From drawn records to one training batch: equal texts once, micro-batches by token budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lit_retrofit.data.records import Document, Record


class Tokenize(Protocol):
    """Turns texts into token ids, with the prompt and the length limit of their role."""

    @property
    def pad_id(self) -> int:
        """The id that fills a row up to the length of its micro-batch."""
        ...

    def __call__(
        self, texts: Sequence[str], role: Literal["query", "document"], max_length: int | None = None
    ) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded, cut to the role's or this length."""
        ...


# The batches are not frozen: Lightning rebuilds them field by field for some precisions.
@dataclass
class TokenBatch:
    """A micro-batch: texts of similar length, padded to the longest.

    Attributes:
        input_ids: (texts, length) int64.
        attention_mask: (texts, length) int64, 1 for a token.
        rows: (texts,) int64, where each embedding goes among the step's texts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenBatch:
        """The same micro-batch on another device."""
        parts = (self.input_ids, self.attention_mask, self.rows)
        return TokenBatch(*(part.to(device, non_blocking=non_blocking) for part in parts))


@dataclass(frozen=True)
class Draw:
    """A record with the positive and the hard negatives drawn for this step."""

    record: Record
    positive: Document
    negatives: tuple[Document, ...]


@dataclass
class RetrievalBatch:
    """Everything one training step needs.

    Attributes:
        micro_batches: the step's unique texts, longest first.
        texts: how many unique texts there are.
        query_rows: (queries,) int64, the text of each query.
        document_rows: (documents,) int64, the text of each document.
        positives: (queries,) int64, the column of each query's positive among the documents.
        known_positives: (queries, most) int64, columns of all documents known to answer the query,
            padded with -1: never negatives for it.
        record_ids: which records these are, for reports.
    """

    micro_batches: tuple[TokenBatch, ...]
    texts: int
    query_rows: Tensor
    document_rows: Tensor
    positives: Tensor
    known_positives: Tensor
    record_ids: tuple[str, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RetrievalBatch:
        """The same batch on another device."""

        def move(part: Tensor) -> Tensor:
            return part.to(device, non_blocking=non_blocking)

        return RetrievalBatch(
            tuple(micro_batch.to(device, non_blocking) for micro_batch in self.micro_batches),
            self.texts,
            move(self.query_rows),
            move(self.document_rows),
            move(self.positives),
            move(self.known_positives),
            self.record_ids,
        )

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(int(micro_batch.attention_mask.sum()) for micro_batch in self.micro_batches)

    @property
    def padded_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return sum(micro_batch.input_ids.numel() for micro_batch in self.micro_batches)


def make_micro_batches(
    tokens: Sequence[Sequence[int]], pad_id: int, token_budget: int
) -> tuple[TokenBatch, ...]:
    """Sorts texts by length, longest first, and cuts them where padded tokens would pass the budget.

    A text less than half as long as the longest of its micro-batch starts a new one too: a step of short
    queries and long documents would otherwise compute padding for almost half of its tokens. The longest
    come first so that a budget that does not fit in memory fails at once. A single text longer than the
    budget gets a micro-batch of its own.
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
    return tuple(_pad([tokens[row] for row in rows], rows, pad_id) for rows in cuts)


def _pad(tokens: Sequence[Sequence[int]], rows: Sequence[int], pad_id: int) -> TokenBatch:
    lengths = torch.tensor([len(ids) for ids in tokens])
    width = max(1, int(lengths.max()))
    mask = torch.arange(width)[None] < lengths[:, None]
    input_ids = torch.full((len(tokens), width), pad_id)
    input_ids[mask] = torch.tensor([i for ids in tokens for i in ids], dtype=torch.long)
    return TokenBatch(input_ids, mask.long(), torch.tensor(rows))


class DocumentColumns:
    """Numbers the distinct documents of a batch: the same id or the same text is the same document."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._by_id: dict[str, int] = {}
        self._by_text: dict[str, int] = {}

    def add(self, document: Document) -> int:
        """The document's column, a new one if neither its id nor its text is known."""
        column = self.find(document)
        if column is None:
            column = len(self.texts)
            self.texts.append(document.text)
        self._by_id.setdefault(document.id, column)
        self._by_text.setdefault(document.text, column)
        return column

    def find(self, document: Document) -> int | None:
        """The document's column, or None if it is not in the batch."""
        return self._by_id.get(document.id, self._by_text.get(document.text))


class RetrievalCollator:
    """Builds a `RetrievalBatch` from draws; runs in the data workers.

    Args:
        tokenize: the model's tokenizer with its prompts and lengths.
        token_budget: padded tokens of a micro-batch.
        document_length: cut documents to this many tokens, where that is less than the model's limit.
    """

    def __init__(self, tokenize: Tokenize, token_budget: int, document_length: int | None = None) -> None:
        self.tokenize = tokenize
        self.token_budget = token_budget
        self.document_length = document_length

    def __call__(self, draws: Sequence[Draw]) -> RetrievalBatch:
        """Tokenizes a step's draws and cuts them into micro-batches."""
        columns = DocumentColumns()
        positives = [columns.add(draw.positive) for draw in draws]
        for draw in draws:
            for negative in draw.negatives:
                columns.add(negative)
        rows: dict[tuple[int, ...], int] = {}
        query_rows = _rows(self.tokenize([draw.record.query for draw in draws], "query"), rows)
        document_rows = _rows(self.tokenize(columns.texts, "document", self.document_length), rows)
        # Texts that are equal once truncated are one to the model, as queries and as documents.
        known = _known_positives(draws, query_rows, columns)
        distinct = {row: column for column, row in enumerate(dict.fromkeys(document_rows))}
        merged = [distinct[row] for row in document_rows]
        return RetrievalBatch(
            make_micro_batches(list(rows), self.tokenize.pad_id, self.token_budget), len(rows),
            torch.tensor(query_rows), torch.tensor(list(distinct)),
            torch.tensor([merged[column] for column in positives]),
            _padded([sorted({merged[column] for column in found}) for found in known]),
            tuple(draw.record.id for draw in draws),
        )  # fmt: skip


def _known_positives(
    draws: Sequence[Draw], query_rows: Sequence[int], columns: DocumentColumns
) -> list[set[int]]:
    """Columns that answer each query: its record's positives and those of records with the same query."""
    by_query: dict[int, set[int]] = {}
    for draw, row in zip(draws, query_rows, strict=True):
        found = by_query.setdefault(row, set())
        found.update(c for c in map(columns.find, draw.record.positives) if c is not None)
        found.add(columns.add(draw.positive))
    return [by_query[row] for row in query_rows]


def _rows(tokens: Iterable[Sequence[int]], rows: dict[tuple[int, ...], int]) -> list[int]:
    """Equal token sequences share one row, whatever their role."""
    return [rows.setdefault(tuple(ids), len(rows)) for ids in tokens]


def _padded(known: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, known))
    return torch.tensor([[*columns, *[-1] * (width - len(columns))] for columns in known])
