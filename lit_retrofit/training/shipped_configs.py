"""The configs that are installed with the package, or stand in its checkout."""

from __future__ import annotations

from pathlib import Path

from lit_retrofit.data.catalogue import config_folder


def with_shipped_config(word: str) -> str:
    """``configs/…`` means the shipped configs where the working directory has none of that name."""
    name = word.removeprefix("--config=")
    if not name.startswith("configs/") or Path(name).exists():
        return word
    shipped = config_folder().parent / name
    return word.removesuffix(name) + str(shipped) if shipped.is_file() else word
