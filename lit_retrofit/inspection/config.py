"""What a config of `fit` says of the data: its sources, and where texts are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_retrofit.data.options import DataOptions
from lit_retrofit.errors import UserError
from lit_retrofit.model.tokenizer import Role

Limits = dict[Role, tuple[int, str]]  # tokens kept of a role's texts, and the option that says so
CUT_IN_TRAINING = "data.options.training_document_length"


@dataclass(frozen=True)
class Config:
    """What an inspection takes of a config.

    Attributes:
        options: of the data.
        lengths: the model's; a role that the config gives none is not there.
    """

    options: DataOptions
    lengths: Limits = field(default_factory=dict)


def read_config(path: Path) -> Config:
    """Reads a config file; sampling, the trainer and the rest of the model are not of interest here.

    Raises:
        UserError: it is not there, is no config, or names no source.
    """
    import yaml
    from jsonargparse import ArgumentParser

    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataOptions, "data.options")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        options = parser.parse_object({"data": {"options": content["data"]["options"]}})
        found: DataOptions = parser.instantiate_classes(options).data.options
    except (KeyError, TypeError):
        raise UserError(f"{path}: has no data.options; name a config of training data") from None
    except Exception as error:  # jsonargparse and its YAML loader raise many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as a config ({reason:.300}); correct it") from None
    if not found.train:
        raise UserError(f"{path}: data.options.train names no source; add one")
    return Config(found, _lengths(path, content.get("model")))


def _lengths(path: Path, model: Any) -> Limits:
    """The model's limits. Documents have an encoder of their own where the config names one."""
    model = model if isinstance(model, dict) else {}
    of_documents = "document_encoder" if model.get("document_encoder") else "encoder"
    encoders: dict[Role, str] = {"query": "encoder", "document": of_documents}
    found: Limits = {}
    for role, encoder in encoders.items():
        options, name = model.get(encoder), f"model.{encoder}.{role}_max_length"
        length = options.get(f"{role}_max_length") if isinstance(options, dict) else None
        if length is None:
            continue
        if not isinstance(length, int):
            raise UserError(f"{path}: {name} is {length!r}; give a number of tokens")
        found[role] = length, name
    return found


def text_limits(config: Config, own: dict[Role, int], max_length: int | None) -> Limits:
    """At how many tokens training cuts the texts of each role, and what says so.

    Args:
        config: of the training.
        own: the limits of the model that is given, or of `max_length`.
        max_length: the user's, which goes before the config's.
    """
    if max_length is not None:
        return {role: (length, "--max_length") for role, length in own.items()}
    found = {role: config.lengths.get(role, (length, "the model's own")) for role, length in own.items()}
    shorter = config.options.training_document_length
    if shorter is not None and shorter < found["document"][0]:
        found["document"] = shorter, CUT_IN_TRAINING
    return found
