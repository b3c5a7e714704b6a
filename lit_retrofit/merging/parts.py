"""The models that are merged: what they are, whether they fit together, their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.merging.weights import Weights
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.loading import find_checkpoint, load_encoder, read_options
from lit_retrofit.model.source import resolve_model


@dataclass(frozen=True)
class Part:
    """A model to merge.

    Attributes:
        name: as the user named it.
        checkpoint: of a run; None for a model that is whole.
        options: what its encoder is built from.
    """

    name: str
    checkpoint: Path | None
    options: EncoderOptions

    @property
    def base(self) -> str | None:
        """The model that the run started from; unknown for a whole model."""
        return None if self.checkpoint is None else self.options.model

    def plain_encoder(self, *, weights: bool = True) -> Encoder:
        """The encoder without adapters: of a run it has the base's weights."""
        return build_encoder(_plain(self.options), weights=weights)


def read_part(name: str) -> Part:
    """What a name means, without its weights.

    Raises:
        UserError: there is no such model.
    """
    checkpoint = find_checkpoint(name)
    if checkpoint is not None:
        options, *more = read_options(checkpoint)
        if more:
            raise UserError(
                f"{name}: has two encoders, of queries and of documents, and a merged model one; leave it out"
            )
        return Part(name, checkpoint, options)
    if Path(name).is_dir() and (Path(name) / "config.yaml").is_file():
        raise UserError(f"{name}: a run without a checkpoint; let it save one, or leave it out")
    resolve_model(name)
    return Part(name, None, EncoderOptions(model=name))


def _plain(options: EncoderOptions) -> EncoderOptions:
    """As it is used, whatever it was trained with."""
    return replace(
        options,
        lora=None,
        dropout=None,
        freeze_embeddings=False,
        freeze_layers=0,
        gradient_checkpointing=False,
        compile=False,
    )


def dense_weights(part: Part) -> Weights:
    """The weights of the whole backbone, adapters folded in, without the pooler, which nothing here uses."""
    state = load_encoder(part.name).of("query").merged_backbone().state_dict()
    return {name: weight for name, weight in state.items() if _counts(name) and weight.is_floating_point()}


def check_fit(models: Sequence[Part], base: Part | None) -> None:
    """Refuses models whose weights do not mean the same: all are looked at before any weight is read.

    Args:
        models: the first is the one that the others are compared with.
        base: of it only the weights are used: its pooling and prompts may be others.

    Raises:
        UserError: another architecture, dimension or tokenizer, or models that embed in another way.
    """
    first = models[0].plain_encoder(weights=False)
    for part in [*models[1:], *([base] if base else [])]:
        other = part.plain_encoder(weights=False)
        problem = _weights_differ(first, other) or (_use_differs(first, other) if part is not base else None)
        if problem:
            raise UserError(
                f"{part.name} cannot be merged with {models[0].name}: it has {problem}; merge models that "
                "were trained from one base"
            )


def _weights_differ(first: Encoder, other: Encoder) -> str | None:
    if first.dimension != other.dimension:
        return f"embeddings of {other.dimension} numbers, not {first.dimension}"
    kinds = [encoder.backbone.config.model_type for encoder in (first, other)]
    if kinds[0] != kinds[1]:
        return f"a backbone of type {kinds[1]}, not {kinds[0]}"
    shapes = [
        {name: weight.shape for name, weight in encoder.backbone.state_dict().items() if _counts(name)}
        for encoder in (first, other)
    ]
    differing = shapes[0].items() ^ shapes[1].items()
    if differing:
        return f"weights of other shapes (first difference: {min(name for name, _ in differing)})"
    vocabularies = [encoder.tokenizer.backend.get_vocab() for encoder in (first, other)]
    return "another tokenizer" if vocabularies[0] != vocabularies[1] else None


def _use_differs(first: Encoder, other: Encoder) -> str | None:
    for name in ("pooling", "query_prompt", "document_prompt"):
        values = [getattr(encoder.options, name) for encoder in (first, other)]
        if values[0] != values[1]:
            return f"{name} {values[1]!r}, not {values[0]!r}"
    return None


def _counts(name: str) -> bool:
    return not name.startswith("pooler.")
