"""The embedded data: LibreOffice help pages, queries and documents in eight languages."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

PREFIX = "quickstart:"
PARTS = {"train": "train.jsonl.gz", "test": "test"}


def resolve_data(name: str | Path) -> Path:
    """Turns ``quickstart:train`` and ``quickstart:test`` into paths; other names are returned unchanged."""
    text = os.fspath(name)
    if not text.startswith(PREFIX):
        return Path(text)
    part = text.removeprefix(PREFIX)
    if part not in PARTS:
        from lit_retrofit.errors import UserError

        raise UserError(f"{text}: no such embedded data; use " + " or ".join(PREFIX + p for p in PARTS))
    return Path(str(files("lit_retrofit.quickstart") / "data" / PARTS[part]))
