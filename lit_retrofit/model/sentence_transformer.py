"""Writes a sentence-transformers directory through that library's own `save_pretrained`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.model.pooling import PoolingName
from lit_retrofit.model.tokenizer import Role


def save_sentence_transformer(
    backbone: Any,
    tokenizer: Any,
    folder: Path,
    *,
    pooling: PoolingName,
    normalise: bool,
    prompts: Mapping[Role, str],
    max_lengths: Mapping[Role, int],
) -> None:
    """Writes stock modules only, so that nobody needs `trust_remote_code` to load them.

    Args:
        backbone: a Hugging Face model, adapters already merged.
        tokenizer: its tokenizer.
        folder: where to; its parent exists.
        pooling: how token states become one vector.
        normalise: whether vectors have length one.
        prompts: per role.
        max_lengths: tokens per role, prompt included.
    """
    save_part(Part(backbone, tokenizer, pooling, normalise, max_lengths), folder, prompts=prompts)


@dataclass(frozen=True)
class Part:
    """What one encoder needs to embed.

    Attributes:
        backbone: a Hugging Face model, adapters already merged.
        tokenizer: its tokenizer.
        pooling: how token states become one vector.
        normalise: whether vectors have length one.
        max_lengths: tokens per role, prompt included.
    """

    backbone: Any
    tokenizer: Any
    pooling: PoolingName
    normalise: bool
    max_lengths: Mapping[Role, int]

    def modules(self, scratch: str) -> list[Any]:
        """The library's modules; files are read from `scratch`, which they need no longer then."""
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

        self.backbone.save_pretrained(scratch)
        self.tokenizer.save_pretrained(scratch)
        transformer = Transformer(
            scratch,
            max_seq_length=max(self.max_lengths.values()),
            query_length=self.max_lengths["query"],
            document_length=self.max_lengths["document"],
        )
        mode = "lasttoken" if self.pooling == "last" else self.pooling
        pooling = Pooling(self.backbone.config.hidden_size, pooling_mode=mode)
        return [transformer, pooling, *([Normalize()] if self.normalise else [])]


def save_part(part: Part, folder: Path, *, prompts: Mapping[Role, str]) -> None:
    """Writes one encoder for queries and documents; see `save_sentence_transformer`."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _save(part.modules(scratch), prompts, folder)


def save_router(query: Part, document: Part, folder: Path, *, prompts: Mapping[Role, str]) -> None:
    """Writes two encoders as the library's Router, which takes its own for queries and for documents.

    Args:
        query: embeds queries.
        document: embeds documents.
        folder: where to; its parent exists.
        prompts: per role.
    """
    from sentence_transformers.sentence_transformer.modules import Router

    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as first,
        tempfile.TemporaryDirectory(dir=folder.parent) as second,
    ):
        router = Router.for_query_document(
            query_modules=query.modules(first), document_modules=document.modules(second)
        )
        _save([router], prompts, folder)


def _save(modules: list[Any], prompts: Mapping[Role, str], folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        modules=modules,
        prompts={str(role): prompt for role, prompt in prompts.items()},
        similarity_fn_name="cosine",
        device="cpu",
    )
    model.save_pretrained(str(folder), create_model_card=False)
