"""The texts of a step, and how they are cut into micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.model.encoder import EncoderOptions

MEASURED_RECORDS = 2000


@dataclass(frozen=True)
class Texts:
    """What a query brings into a step.

    Attributes:
        query_tokens: of a query, prompt included.
        document_tokens: of a document.
        documents_per_query: its positive and its hard negatives.
        source: where these figures come from, in words.
    """

    query_tokens: float
    document_tokens: float
    documents_per_query: float
    source: str

    def tokens(self, batch: int) -> float:
        """Of a step."""
        return batch * (self.query_tokens + self.documents_per_query * self.document_tokens)


def longest_texts(encoder: EncoderOptions, data: RetrievalData) -> Texts:
    """Every text as long as the config allows: an upper bound."""
    lengths = [encoder.query_max_length, encoder.document_max_length]
    assert lengths[0] is not None and lengths[1] is not None  # `build_encoder` fills them
    cut = min(lengths[1], data.options.training_document_length or lengths[1])
    return Texts(
        lengths[0],
        cut,
        1 + data.sampling.negatives,
        "every text as long as the config allows: an upper bound",
    )


def measured_texts(data: RetrievalData) -> Texts:
    """The mean over the first batches of the training data.

    Raises:
        UserError: there is no training data, or it cannot be read.
    """
    data.setup("fit")
    queries, documents = [], []
    seen = 0
    for batch in data.train_dataloader():
        lengths = torch.zeros(batch.texts)
        for part in batch.micro_batches:
            lengths[part.rows] = part.attention_mask.sum(1).float()
        queries.append(lengths[batch.query_rows])
        documents.append(lengths[batch.document_rows])
        seen += len(batch.query_rows)
        if seen >= MEASURED_RECORDS:
            break
    found, texts = torch.cat(queries), torch.cat(documents)
    return Texts(
        float(found.mean()), float(texts.mean()), len(texts) / len(found),
        f"the mean of {seen} training records",
    )  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Micro-batches that are alike.

    Attributes:
        count: how many.
        tokens: of each.
        length: tokens of each text.
    """

    count: int
    tokens: float
    length: float


def micro_batches(texts: Texts, batch: int, token_budget: int) -> list[Group]:
    """A step's micro-batches, longest texts first, as `make_micro_batches` would cut them.

    Every text is taken for one of its own, of the usual length; documents and queries do not share one.
    """
    parts = [
        (texts.query_tokens, float(batch)),
        (texts.document_tokens, round(batch * texts.documents_per_query)),
    ]
    groups = []
    for length, count in sorted(parts, reverse=True):
        each = max(1, int(token_budget // length))
        full, rest = divmod(int(count), each)
        groups += [Group(full, each * length, length)] if full else []
        groups += [Group(1, rest * length, length)] if rest else []
    return groups
