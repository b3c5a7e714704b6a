"""Sums of LoRA adapters that stay adapters: as small as the parts, and exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lit_retrofit.merging.parts import Part
from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.model.loading import STATE_PREFIX, read_state
from lit_retrofit.model.lora import LoraOptions

_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"


def are_adapters(parts: Sequence[Part], base: str | None) -> bool:
    """Whether all parts are adapters of one base, on the same layers."""
    if any(part.checkpoint is None or part.options.lora is None for part in parts):
        return False
    places = {_places(part.options) for part in parts}
    return len(places) == 1 and base in (None, parts[0].options.model)


def _places(options: EncoderOptions) -> tuple[object, ...]:
    lora = options.lora or LoraOptions()
    return options.model, tuple(lora.targets or ()), lora.top_layers


def add_adapters(
    parts: Sequence[Part], coefficients: Sequence[float]
) -> tuple[EncoderOptions, dict[str, Tensor]]:
    """The adapter whose update is Σ c·s·B·A of the parts, s = alpha / r being each one's own scale.

    The factors are put side by side: [B₁ … Bₙ]·[A₁; …; Aₙ] has rank r₁ + … + rₙ, while averages of the
    factors themselves would not be the average of the updates. Scales and coefficients go into B.

    Args:
        parts: adapters on the same layers, see `are_adapters`.
        coefficients: one for each.

    Returns:
        Options that build the encoder around it, and its weights by name, as a checkpoint holds them.
    """
    states = [read_state(part.checkpoint) for part in parts if part.checkpoint is not None]
    loras = [part.options.lora for part in parts if part.options.lora is not None]
    factors = [
        coefficient * lora.alpha / lora.r for coefficient, lora in zip(coefficients, loras, strict=True)
    ]
    merged = {}
    for name in states[0]:
        if name.endswith(_DOWN):
            merged[name] = torch.cat([state[name] for state in states])
        elif name.endswith(_UP):
            scaled = [factor * state[name] for factor, state in zip(factors, states, strict=True)]
            merged[name] = torch.cat(scaled, dim=1)
    rank = sum(lora.r for lora in loras)
    lora = replace(loras[0], r=rank, alpha=rank, dropout=0.0)
    return replace(parts[0].options, lora=lora), {STATE_PREFIX + name: w for name, w in merged.items()}


def scaled(state: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    """The adapter with its update times ``weight``."""
    return {name: w * weight if name.endswith(_UP) else w for name, w in state.items()}
