"""What the loss must reach."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.kernels.goals import Entry, goal, of_shape
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import ratio

GEMMS_AT_MOST = 1.10
EAGER_AT_LEAST = {384: 1.8, 768: 1.2}
SENTENCE_TRANSFORMERS_AT_LEAST = 1.5
MEMORY_AT_MOST = 600e6
NAMED = tuple(Shape(8192, columns, dimension) for dimension in (384, 768) for columns in (16384, 32768))
"""The shapes whose ratios are bound; others are shown."""
NAMED_MEMORY = Shape(8192, 131072, 384)


def goals(
    shapes: Sequence[Shape], memory_shapes: Sequence[Shape], timings: list[Entry], memory: list[Entry]
) -> list[Entry]:
    """Ratios of the timed shapes (medians of the ratios within each round) and peak memory."""
    found = []
    with_gradients = [entry for entry in timings if entry["pass"] == "forward_backward"]
    for shape in shapes:
        spent = of_shape(with_gradients, shape, "seconds")
        bound = shape in NAMED
        found += [
            goal(
                "ours_vs_three_gemms",
                shape,
                _ratio(spent, "ours", "three_gemms"),
                most=GEMMS_AT_MOST if bound else None,
            ),
            goal(
                "eager_vs_ours",
                shape,
                _ratio(spent, "eager", "ours"),
                least=EAGER_AT_LEAST[shape.dimension] if bound else None,
            ),
            goal(
                "sentence_transformers_vs_ours",
                shape,
                _ratio(spent, "sentence_transformers", "ours"),
                least=SENTENCE_TRANSFORMERS_AT_LEAST if bound else None,
            ),
        ]
    for shape in memory_shapes:
        taken = of_shape(memory, shape, "bytes").get("ours")
        most = MEMORY_AT_MOST if shape == NAMED_MEMORY else None
        found.append(goal("ours_extra_bytes", shape, taken, most=most))
    return found


def _ratio(spent: dict[str, list[float]], above: str, below: str) -> float | None:
    return ratio(spent[above], spent[below]) if above in spent and below in spent else None
