"""Problem sizes, as they are written on the command line and in the results."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Rows (queries), columns (documents) and dimension of the embeddings."""

    rows: int
    columns: int
    dimension: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.dimension}"

    @property
    def products(self) -> int:
        """Multiply-adds of one product, u = B·N·D."""
        return self.rows * self.columns * self.dimension


def parse_shape(text: str) -> Shape:
    """Reads 8192x16384x384."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"a shape is written ROWSxCOLUMNSxDIMENSION, not {text!r}")
    return Shape(*map(int, parts))
