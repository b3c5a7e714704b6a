"""The formats that keep torch: for sentence-transformers and for transformers, written and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lit_retrofit.model.dual import Encoders, only_one
from lit_retrofit.model.plain_folder import SETTINGS, save_plain_folder
from lit_retrofit.model.pooling import POOLING
from lit_retrofit.model.sentence_transformer import save_encoder
from lit_retrofit.model.tokenizer import Role

WAY_OUT = "only --format sentence-transformers holds two"
Embed = Callable[[Sequence[str], Role], Tensor]


class ExportFormat(Protocol):
    """How a model is written, and how its users will embed with what was written."""

    def write(self, encoder: Encoders, folder: Path) -> None:
        """Writes the model. The encoder must not be used after."""

    def load(self, folder: Path) -> Embed:
        """Reads it back without this tool's own encoder: (texts, role) to (texts, dimension) on the CPU."""


class SentenceTransformersFolder:
    """Stock modules, for `SentenceTransformer(folder)`."""

    def write(self, encoder: Encoders, folder: Path) -> None:
        """Writes through sentence-transformers' own save_pretrained."""
        save_encoder(encoder, folder)

    def load(self, folder: Path) -> Embed:
        """Embeds by encode_query and encode_document."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu")

        def embed(texts: Sequence[str], role: Role) -> Tensor:
            encode = model.encode_query if role == "query" else model.encode_document
            return encode(list(texts), convert_to_tensor=True, show_progress_bar=False)

        return embed


class TransformersFolder:
    """Backbone and tokenizer, for `AutoModel.from_pretrained(folder)`; pooling is the user's to do."""

    def write(self, encoder: Encoders, folder: Path) -> None:
        """Writes through transformers' own save_pretrained."""
        save_plain_folder(only_one(encoder, WAY_OUT), folder)

    def load(self, folder: Path) -> Embed:
        """Embeds as the card tells its readers to."""
        from transformers import AutoModel

        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenize = tokenizer_of(folder)
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))

        def embed(texts: Sequence[str], role: Role) -> Tensor:
            batch = tokenize(texts, role)
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            pooled = POOLING[settings["pooling"]](hidden, batch["attention_mask"])
            return torch.nn.functional.normalize(pooled, dim=-1) if settings["normalise"] else pooled

        return embed


def tokenizer_of(folder: Path) -> Callable[[Sequence[str], Role], dict[str, Tensor]]:
    """Tokenizes with the folder's own tokenizer, prompts and lengths: padded ids and their mask."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))

    def tokenize(texts: Sequence[str], role: Role) -> dict[str, Tensor]:
        prompted = [settings["prompts"][role] + text for text in texts]
        batch = tokenizer(
            prompted, padding=True, truncation=True, max_length=settings["max_lengths"][role],
            return_tensors="pt", return_token_type_ids=False,
        )  # fmt: skip
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    return tokenize
