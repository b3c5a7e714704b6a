"""The models that the rules name: whether they are there, and which they are, before anything is read."""

from __future__ import annotations

from pathlib import Path

from lit_retrofit.cleaning.consistency import BM25
from lit_retrofit.cleaning.options import ConsistencyOptions, LengthOptions
from lit_retrofit.cleaning.sources import Stamp, stamp
from lit_retrofit.errors import UserError


def stamp_models(lengths: LengthOptions, consistency: ConsistencyOptions) -> dict[str, Stamp]:
    """What the names of models stand for today: by option, the stamps of their files.

    A name alone does not tell: the folder may be trained anew before a run goes on. Weights are not loaded.

    Raises:
        UserError: there is no such model.
    """
    named = {"lengths.model": lengths.model}
    if consistency.retriever != BM25:
        named["consistency.retriever"] = consistency.retriever
    return {option: _stamp(model) for option, model in named.items() if model is not None}


def _stamp(model: str) -> Stamp:
    from lit_retrofit.model.loading import find_checkpoint, read_options

    checkpoint = find_checkpoint(model)
    if checkpoint is None:
        return stamp([_files(model)])
    # It holds what was trained; the rest is the base model's.
    return stamp([checkpoint, *(_files(options.model) for options in read_options(checkpoint))])


def _files(model: str) -> str:
    """A model's folder; of one on the hub a file, whose place in the cache tells the commit."""
    from transformers.utils import cached_file

    from lit_retrofit.model.source import resolve_model

    source = resolve_model(model)
    if Path(source).is_dir():
        return source
    try:
        return str(cached_file(source, "config.json"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{model}: cannot be loaded ({reason:.300}); check the name and the connection, or give a folder"
        ) from error
