"""The configs that are installed with the package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def with_shipped_config(word: str) -> str:
    """``configs/…`` means the installed configs where the working directory has none of that name."""
    name = word.removeprefix("--config=")
    shipped = PACKAGE / name
    if name.startswith("configs/") and not Path(name).exists() and shipped.is_file():
        return word.removesuffix(name) + str(shipped)
    return word
