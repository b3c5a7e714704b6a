"""Two encoders that share a space: one for queries, one for documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.tokenizer import Role, RoleTokenizer


@dataclass(frozen=True)
class DualTokenizer:
    """The tokenizers of two encoders, by role.

    Attributes:
        query: of the encoder of queries.
        document: of the encoder of documents.
    """

    query: RoleTokenizer
    document: RoleTokenizer

    def of(self, role: Role) -> RoleTokenizer:
        """The one of a role's encoder."""
        return self.query if role == "query" else self.document

    def __call__(
        self, texts: Sequence[str], role: Role, max_length: int | None = None, prompt: str | None = None
    ) -> list[list[int]]:
        """Token ids for the role's encoder; see `RoleTokenizer`."""
        return self.of(role)(texts, role, max_length, prompt)


class DualEncoder(nn.Module):
    """An encoder for queries and another for documents, with embeddings of one length.

    Args:
        query: embeds queries.
        document: embeds documents.

    Raises:
        UserError: their embeddings differ in length, or only one of them normalises.
    """

    def __init__(self, query: Encoder, document: Encoder) -> None:
        super().__init__()
        if query.dimension != document.dimension:
            raise UserError(
                f"model.encoder ({query.options.model}) makes {query.dimension} numbers of a text and "
                f"model.document_encoder ({document.options.model}) {document.dimension}, which cannot be "
                "compared; give two models of one hidden size"
            )
        if query.normalise != document.normalise:
            raise UserError(
                "only one of model.encoder and model.document_encoder normalises its embeddings; give two "
                "models that agree"
            )
        self.query = query
        self.document = document
        self.tokenizer = DualTokenizer(query.tokenizer, document.tokenizer)

    def of(self, role: Role) -> Encoder:
        """The encoder of a role."""
        return self.query if role == "query" else self.document

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """Both; that of queries first."""
        return self.query, self.document

    @property
    def normalise(self) -> bool:
        """Whether embeddings have length one."""
        return self.query.normalise

    @property
    def dimension(self) -> int:
        """The length of an embedding."""
        return self.query.dimension

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.query.device


Encoders = Encoder | DualEncoder
"""What embeds a run's texts: ``of(role)`` is the encoder of queries or of documents, mostly the same one."""


def only_one(encoder: Encoders, what: str) -> Encoder:
    """The encoder, where one does for queries and documents.

    Args:
        encoder: of a model.
        what: cannot take two, and what to do instead.

    Raises:
        UserError: there are two.
    """
    if isinstance(encoder, DualEncoder):
        raise UserError(f"the model has two encoders, of queries and of documents; {what}")
    return encoder
