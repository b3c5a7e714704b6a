"""From drawn records to one training batch: equal texts once, and who is whose positive and negative."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor

from lit_retrofit.data.batching import RetrievalBatch, Role, TokenBatch, Tokenize, make_micro_batches
from lit_retrofit.data.mixture import group_of
from lit_retrofit.data.options import Key
from lit_retrofit.data.records import Document
from lit_retrofit.data.sampling import Draw, Prompted
from lit_retrofit.data.teacher import Teacher
from lit_retrofit.errors import UserError

Tokens = tuple[int, ...]
_EVERYBODY = ("all",)


class RetrievalCollator:
    """Builds a `RetrievalBatch` from draws; runs in the data workers.

    Args:
        tokenize: the model's tokenizer with its prompts and lengths.
        token_budget: padded tokens of a micro-batch.
        document_length: cut documents to this many tokens, where that is less than the model's limit.
        negatives_within: what a document's query must have in common with a query to be its negative.
        private_sources: whether any source goes without in-batch negatives. Batches then have groups,
            whatever is in them: all devices must agree on that.
        teacher: where another model's embeddings of the texts are looked up.
        scored: whether any record of the run has scores. Batches then have them, NaN where unknown, and
            negatives, whatever is in them: all devices must agree on that too.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        token_budget: int,
        document_length: int | None = None,
        negatives_within: Sequence[Key] = (),
        private_sources: bool = False,
        teacher: Teacher | None = None,
        scored: bool = False,
    ) -> None:
        self.tokenize = tokenize
        self.token_budget = token_budget
        self.document_length = document_length
        self.negatives_within = negatives_within
        self.private_sources = private_sources
        self.teacher = teacher
        self.scored = scored

    def __call__(self, draws: Sequence[Draw]) -> RetrievalBatch:
        """Tokenizes a step's draws, numbers its texts and documents, and cuts it into micro-batches."""
        groups = [self._group(draw) for draw in draws]
        texts: dict[Tokens, int] = {}
        shared = draws[0].shared or draws
        query_tokens = self._tokenized([_query(draw) for draw in shared], "query")
        queries = [texts.setdefault(query_tokens[_query(draw)], len(texts)) for draw in draws]
        answers = _answers(shared, query_tokens)
        own_answers = [answers[query_tokens[_query(draw)]] for draw in draws]
        documents = _Documents(draws, groups)
        document_texts = {} if self._two_encoders else texts
        document_tokens = self._tokenized(chain(documents.texts, *own_answers), "document")
        documents.number(document_tokens, document_texts)
        if self._two_encoders:
            documents.rows = [len(texts) + row for row in documents.rows]
        known = [{document_tokens[text] for text in found} for found in own_answers]
        known_columns = [
            {column for tokens in found if (column := documents.find(tokens, group)) is not None}
            for found, group in zip(known, groups, strict=True)
        ]
        batch = RetrievalBatch(
            self._micro_batches(list(texts), list(document_texts)),
            len(texts) + (len(document_texts) if self._two_encoders else 0),
            torch.tensor(queries), torch.tensor(documents.rows), torch.tensor(documents.positives),
            _padded([sorted(found) for found in known_columns]),
            tuple(draw.record.id for draw in draws),
        )  # fmt: skip
        ids: dict[Tokens, int] = {}
        batch.document_ids = torch.tensor([_id(tokens, ids) for tokens in documents.tokens])
        batch.known_ids = _padded([sorted(_id(tokens, ids) for tokens in found) for found in known])
        if self._grouped(draws):
            batch.query_groups = torch.tensor([_number(group) for group in groups])
            batch.document_groups = torch.tensor([_number(group) for group in documents.groups])
        batch.negatives, batch.teacher_scores = _own_negatives(draws, documents, known_columns, self.scored)
        batch.temperature = _temperature(draws)
        if self.teacher is not None:
            batch.teacher_queries = self.teacher.look_up([draw.record.query for draw in draws], "query")
            batch.teacher_documents = self.teacher.look_up(documents.column_texts, "document")
        return batch

    @property
    def _two_encoders(self) -> bool:
        return self.tokenize.of("query") is not self.tokenize.of("document")

    def _micro_batches(self, queries: list[Tokens], documents: list[Tokens]) -> tuple[TokenBatch, ...]:
        """Of all texts together where one encoder embeds them, else of each role apart; longest first."""
        query_pad, document_pad = (self.tokenize.of(role).pad_id for role in ("query", "document"))
        if not self._two_encoders:
            return make_micro_batches(queries, query_pad, self.token_budget)
        parts = (
            *make_micro_batches(queries, query_pad, self.token_budget, "query"),
            *make_micro_batches(documents, document_pad, self.token_budget, "document", len(queries)),
        )
        return tuple(sorted(parts, key=lambda part: -part.input_ids.shape[1]))

    def _tokenized(self, texts: Iterable[Prompted], role: Role) -> dict[Prompted, Tokens]:
        """Each text's tokens; one call of the tokenizer per prompt, in which no text is twice."""
        by_prompt: defaultdict[str | None, dict[str, None]] = defaultdict(dict)
        for text, prompt in texts:
            by_prompt[prompt][text] = None
        length = self.document_length if role == "document" else None
        found: dict[Prompted, Tokens] = {}
        for prompt, names in by_prompt.items():
            if prompt is None:
                tokenized = self.tokenize(list(names), role, length)
            else:
                tokenized = self.tokenize(list(names), role, length, prompt=prompt)
            for text, tokens in zip(names, tokenized, strict=True):
                found[text, prompt] = tuple(tokens)
        return found

    def _grouped(self, draws: Sequence[Draw]) -> bool:
        private = self.private_sources or any(draw.source.private for draw in draws)
        return private or bool(self.negatives_within)

    def _group(self, draw: Draw) -> tuple[str, ...]:
        """Names whose documents are negatives for whom: a query without in-batch negatives is alone."""
        if draw.source.private:
            return ("query", str(draw.place))
        return group_of(draw.record, draw.source, self.negatives_within) or _EVERYBODY


class _Documents:
    """A step's documents, before and after tokenization.

    A column is a token sequence in a group: what the model cannot tell apart (equal texts, and texts equal
    once truncated) is one document.
    """

    def __init__(self, draws: Sequence[Draw], groups: Sequence[tuple[str, ...]]) -> None:
        """Takes every draw's positive, then every draw's negatives."""
        self.texts: list[Prompted] = []
        self._groups: list[tuple[str, ...]] = []
        for draw, group in zip(draws, groups, strict=True):
            self._add(draw.positive, draw, group)
        for draw, group in zip(draws, groups, strict=True):
            for negative in draw.negatives:
                self._add(negative, draw, group)
        self._draws, self._draw_groups = draws, groups

    def _add(self, document: Document, draw: Draw, group: tuple[str, ...]) -> None:
        self.texts.append((document.text, draw.source.document_prompt))
        self._groups.append(group)

    def number(self, tokens: dict[Prompted, Tokens], rows: dict[Tokens, int]) -> None:
        """Gives every document its column, and every new token sequence its row among the step's texts."""
        self._tokens = tokens
        self._columns: dict[tuple[Tokens, tuple[str, ...]], int] = {}
        self.column_texts: list[str] = []
        for text, group in zip(self.texts, self._groups, strict=True):
            column = (tokens[text], group)
            if column not in self._columns:
                self._columns[column] = len(self._columns)
                self.column_texts.append(text[0])
                rows.setdefault(tokens[text], len(rows))
        self.tokens = [column[0] for column in self._columns]
        self.groups = [column[1] for column in self._columns]
        self.rows = [rows[sequence] for sequence in self.tokens]
        self.positives = [self._column_of(draw.positive, i) for i, draw in enumerate(self._draws)]
        self.negatives = [
            [self._column_of(negative, i) for negative in draw.negatives]
            for i, draw in enumerate(self._draws)
        ]

    def _column_of(self, document: Document, draw: int) -> int:
        text = (document.text, self._draws[draw].source.document_prompt)
        return self._columns[self._tokens[text], self._draw_groups[draw]]

    def find(self, tokens: Tokens, group: tuple[str, ...]) -> int | None:
        """The column of these tokens in a group."""
        return self._columns.get((tokens, group))


def _query(draw: Draw) -> Prompted:
    return draw.record.query, draw.source.query_prompt


def _answers(draws: Sequence[Draw], tokens: dict[Prompted, Tokens]) -> dict[Tokens, set[Prompted]]:
    """By a query's tokens, those documents of the batch that are known to answer it.

    Known by id, by text, or from another record whose query the model cannot tell from this one.
    """
    same_id: defaultdict[str, set[Prompted]] = defaultdict(set)
    same_text: defaultdict[str, set[Prompted]] = defaultdict(set)
    for draw in draws:
        for document in (draw.positive, *draw.negatives):
            text = (document.text, draw.source.document_prompt)
            same_id[document.id].add(text)
            same_text[document.text].add(text)
    none: set[Prompted] = set()
    found: defaultdict[Tokens, set[Prompted]] = defaultdict(set)
    for draw in draws:
        answers = found[tokens[_query(draw)]]
        for document in (*draw.record.positives, draw.positive):
            answers |= same_id.get(document.id, none) | same_text.get(document.text, none)
    return found


def _own_negatives(
    draws: Sequence[Draw], documents: _Documents, known: Sequence[set[int]], scored: bool
) -> tuple[Tensor | None, Tensor | None]:
    """(queries, most) columns of the drawn negatives, and (queries, 1 + most) scores with the positive's."""
    columns: list[list[int]] = []
    scores: list[list[float]] = []
    for draw, drawn, answers in zip(draws, documents.negatives, known, strict=True):
        own: dict[int, float] = {}
        for i, column in enumerate(drawn):
            if column not in answers:
                own.setdefault(column, draw.negative_scores[i] if draw.negative_scores else math.nan)
        columns.append(list(own))
        scores.append([math.nan if draw.positive_score is None else draw.positive_score, *own.values()])
    scored = scored or any(not math.isnan(score) for row in scores for score in row)
    return (
        _padded(columns).long() if scored or any(columns) else None,
        _padded(scores, math.nan) if scored else None,
    )


def _temperature(draws: Sequence[Draw]) -> float | None:
    first, *others = {draw.source.temperature for draw in draws}
    if others:
        raise UserError(
            "a batch of sources with different temperatures; set data.sampling.homogeneous to [source], and "
            "homogeneous_share to 1"
        )
    return first


def _id(tokens: Tokens, ids: dict[Tokens, int]) -> int:
    """A hash of the tokens, from 0: in a step of a million texts, two share one with probability 5e-8."""
    if tokens not in ids:
        ids[tokens] = _hash(array("q", tokens).tobytes())
    return ids[tokens]


def _number(group: tuple[str, ...]) -> int:
    return _hash(repr(group).encode())


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def _padded(rows: Sequence[Sequence[float]], filling: float = -1) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (width - len(row))] for row in rows])
