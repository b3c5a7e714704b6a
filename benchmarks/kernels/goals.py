"""Bounds that results are held to, and what the cost model expects of GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from retrofit_kernels.cost import CARDS, Cost

from benchmarks.kernels.shapes import Shape

Entry = dict[str, Any]
Predict = Callable[[Shape, str, str], Cost]
"""Cost of a shape in a dtype on a card."""


def goal(
    name: str, shape: Shape, value: float | None, most: float | None = None, least: float | None = None
) -> Entry:
    """One line of "must_reach": `reached` is None where nothing was measured or nothing is asked for."""
    bound, direction = (most, "at most") if most is not None else (least, "at least")
    reached = None
    if value is not None and bound is not None:
        reached = value <= bound if direction == "at most" else value >= bound
    return {
        "name": name,
        "shape": asdict(shape),
        "value": value,
        "bound": bound,
        "direction": direction if bound is not None else None,
        "reached": reached,
    }


def of_shape(entries: list[Entry], shape: Shape, field: str) -> dict[str, Any]:
    """A field of what was measured on a shape, for each peer."""
    return {
        entry["peer"]: entry[field]
        for entry in entries
        if entry["shape"] == asdict(shape) and entry["skipped"] is None
    }


def predictions(shapes: Sequence[Shape], predict: Predict, timings: list[Entry], device: str) -> list[Entry]:
    """Seconds that the model expects of each card, beside our measured ones on this very card."""
    gpu = _this_card() if device == "cuda" else None
    found = []
    for key, card in CARDS.items():
        dtype = "bfloat16" if card.bfloat16 is not None else "float16"
        for shape in shapes:
            cost = predict(shape, dtype, key)
            measured = of_shape(timings, shape, "median").get("ours") if key == gpu else None
            found.append(
                {
                    "card": card.name,
                    "shape": asdict(shape),
                    "dtype": dtype,
                    "limited_by": cost.limited_by,
                    "resident_blocks": cost.occupancy.blocks if cost.occupancy else None,
                    "predicted_seconds": cost.seconds,
                    "measured_seconds": measured,
                }
            )
    return found


def _this_card() -> str | None:
    name = torch.cuda.get_device_name().replace(" ", "").lower()
    return next((key for key in sorted(CARDS, key=len, reverse=True) if key in name), None)
