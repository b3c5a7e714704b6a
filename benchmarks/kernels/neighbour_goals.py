"""What the search must reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.kernels.goals import Entry, goal, of_shape
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import ratio

FOUND_AT_LEAST = 0.9999
GAP_AT_MOST = 1e-6
"""Two documents whose scores differ by less than fp32 can hold may change places, also at rank k."""
NAMED = Shape(20000, 200000, 384)
"""The shape whose figures are bound; others are shown."""


def goals(
    shapes: Sequence[Shape], timings: list[Entry], memory: list[Entry], quality: list[Entry]
) -> list[Entry]:
    """Time against faiss, memory against sentence-transformers, and what was found of the exact result."""
    found = []
    for shape in shapes:
        bound = 1.0 if shape == NAMED else None
        spent = of_shape(timings, shape, "seconds")
        taken = of_shape(memory, shape, "bytes")
        compared = next(entry["peers"] for entry in quality if entry["shape"] == asdict(shape)).get("ours")
        faster = ratio(spent["faiss"], spent["ours"]) if {"faiss", "ours"} <= set(spent) else None
        smaller = None
        if {"sentence_transformers", "ours"} <= set(taken):
            smaller = taken["sentence_transformers"] / max(1, taken["ours"])
        own = compared if isinstance(compared, dict) else {}
        found += [
            goal("faiss_vs_ours", shape, faster, least=bound),
            goal("sentence_transformers_bytes_vs_ours", shape, smaller, least=bound),
            goal("ours_found", shape, own.get("found"), least=FOUND_AT_LEAST),
            goal("ours_worst_gap", shape, own.get("worst_gap"), most=GAP_AT_MOST),
        ]
    return found
