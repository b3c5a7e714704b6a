"""Writes a sentence-transformers directory through that library's own `save_pretrained`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lit_retrofit.model.pooling import PoolingName
from lit_retrofit.model.tokenizer import Role

if TYPE_CHECKING:
    from lit_retrofit.model.encoder import Encoder


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Writes an encoder. Its adapters are merged by it: do not use the encoder after.

    Args:
        encoder: the model.
        folder: where to; its parent exists.
    """
    save_sentence_transformer(
        encoder.merged_backbone(),
        encoder.tokenizer.backend,
        folder,
        pooling=encoder.options.pooling or "mean",
        normalise=encoder.normalise,
        prompts=encoder.tokenizer.prompts,
        max_lengths=encoder.tokenizer.max_lengths,
    )


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
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        backbone.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        transformer = Transformer(
            scratch,
            max_seq_length=max(max_lengths.values()),
            query_length=max_lengths["query"],
            document_length=max_lengths["document"],
        )
        mode = "lasttoken" if pooling == "last" else pooling
        modules: list[nn.Module] = [transformer, Pooling(backbone.config.hidden_size, pooling_mode=mode)]
        if normalise:
            modules.append(Normalize())
        model = SentenceTransformer(
            modules=modules,
            prompts={str(role): prompt for role, prompt in prompts.items()},
            similarity_fn_name="cosine",
            device="cpu",
        )
        model.save_pretrained(str(folder), create_model_card=False)
