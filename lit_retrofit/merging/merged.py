"""A merged model at any weight between its base and the sum of its parts, in one of two forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.merging.adapters import add_adapters, are_adapters, scaled
from lit_retrofit.merging.parts import Part, dense_weights
from lit_retrofit.merging.weights import Method, Weights, combine, interpolate
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.loading import STATE_PREFIX, own_options
from lit_retrofit.model.sentence_transformer import save_encoder


class Merged(Protocol):
    """What can be measured at several weights, and written at the chosen one."""

    encoder: Encoder

    def set_weight(self, weight: float) -> None:
        """Puts the merged weights into the encoder: 0 is the base, 1 the whole sum."""

    def write(self, folder: Path) -> None:
        """Writes the encoder as it is, as a folder that every command reads. It is of no use after."""


class MergedAdapters:
    """A run folder: a checkpoint of one adapter, beside the base as small as its parts.

    Args:
        options: of the encoder.
        state: the adapter's weights, as `add_adapters` gives them.
    """

    def __init__(self, options: EncoderOptions, state: dict[str, Tensor]) -> None:
        self.encoder = build_encoder(options)
        self._state = state
        self.set_weight(1.0)

    def set_weight(self, weight: float) -> None:
        """Scales the adapter."""
        self._scaled = scaled(self._state, weight)
        own = {name.removeprefix(STATE_PREFIX): value for name, value in self._scaled.items()}
        self.encoder.load_state_dict(own, strict=False)

    def write(self, folder: Path) -> None:
        """Writes checkpoints/last.ckpt."""
        (folder / "checkpoints").mkdir(parents=True)
        content = {"state_dict": self._scaled, **own_options(self.encoder)}
        torch.save(content, folder / "checkpoints" / "last.ckpt")


class MergedWeights:
    """A sentence-transformers directory with all weights.

    Args:
        encoder: without adapters; what it is used with (prompts, pooling, lengths) is the merged model's.
        base: the weights at 0.
        target: those at 1.
        method: how to get from one to the other.
    """

    def __init__(self, encoder: Encoder, base: Weights, target: Weights, method: Method) -> None:
        self.encoder = encoder
        self._base, self._target, self._method = base, target, method
        self.set_weight(1.0)

    def set_weight(self, weight: float) -> None:
        """Interpolates; at 1 it is the target itself, without rounding."""
        found = self._target if weight == 1 else interpolate(self._base, self._target, weight, self._method)
        self.encoder.backbone.load_state_dict(found, strict=False)

    def write(self, folder: Path) -> None:
        """Writes the directory."""
        save_encoder(self.encoder, folder)


def merge_parts(
    models: Sequence[Part], base: Part | None, coefficients: Sequence[float], method: Method
) -> Merged:
    """The merged model, as adapters where that is possible.

    Args:
        models: at least one, of one architecture.
        base: what they started from; None where all that is wanted is their average.
        coefficients: one for each model, see `combine`.
        method: between the base and the sum.

    Raises:
        UserError: a model cannot be read, or has weights that are not finite.
    """
    own = base.name if base and base.checkpoint is None else None
    if method == "linear" and (base is None or own is not None) and are_adapters(models, own):
        options, state = add_adapters(models, coefficients)
        check_finite(models, state)
        return MergedAdapters(options, state)
    start = dense_weights(base or models[0])
    target = combine(
        start,
        (
            (coefficient, dense_weights(model))
            for model, coefficient in zip(models, coefficients, strict=True)
        ),
    )
    check_finite(models, target)
    return MergedWeights(models[0].plain_encoder(), start, target, method)


def check_finite(models: Sequence[Part], weights: Weights) -> None:
    """Refuses what a diverged run leaves."""
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        names = ", ".join(model.name for model in models)
        raise UserError(
            f"{names}: merged, {len(broken)} tensors are not finite (first: {broken[0]}); leave the run out "
            "that diverged"
        )
