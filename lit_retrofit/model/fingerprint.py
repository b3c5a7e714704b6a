"""What an encoder computes with, as a hash: two encoders of one fingerprint give the same embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lit_retrofit.model.encoder import Encoder

_WITHOUT_EFFECT = ("transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id")
"""Fields of a config that change no embedding, beside those that begin with _ and the dropouts."""


def fingerprint(encoder: Encoder) -> str:
    """A hash of the weights, the configuration, the adapters' options and the tokenizer.

    Neither the model's name nor its folder counts: a copy has the same fingerprint, another training of the
    same base has another. Prompts, pooling, lengths and precision are not in it; they differ by use.

    Returns:
        64 hexadecimal digits. *Measured*: 0.5 s for 118 million parameters on one core.
    """
    backbone = encoder.backbone
    return hash_parts(backbone.state_dict(), backbone.config, encoder.options.lora, encoder.tokenizer.backend)


def hash_parts(weights: Mapping[str, Tensor], config: Any, adapters: Any, tokenizer: Any) -> str:
    """A hash of what a model computes with.

    Args:
        weights: by name.
        config: of transformers.
        adapters: their options, or None.
        tokenizer: of transformers.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(_bytes(weight))
    digest.update(json.dumps(_config(config), sort_keys=True, default=str).encode())
    digest.update(repr(adapters).encode())
    digest.update(_tokenizer(tokenizer).encode())
    return digest.hexdigest()


def _bytes(weight: Tensor) -> Any:
    return weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _config(config: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in config.to_dict().items()
        if not name.startswith("_") and name not in _WITHOUT_EFFECT and "dropout" not in name
    }


def _tokenizer(backend: Any) -> str:
    if not hasattr(backend, "backend_tokenizer"):
        return json.dumps(backend.get_vocab(), sort_keys=True)
    content = json.loads(backend.backend_tokenizer.to_str())
    # Every call sets these two anew.
    return json.dumps(content | {"truncation": None, "padding": None}, sort_keys=True)
