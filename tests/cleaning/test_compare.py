"""What the second pass holds in memory: as much as docs/cleaning.md says."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np

from lit_retrofit.cleaning import duplicates
from lit_retrofit.cleaning.compare import compare
from lit_retrofit.cleaning.examine import Examined
from lit_retrofit.cleaning.options import DuplicateOptions
from lit_retrofit.cleaning.signatures import VALUES
from lit_retrofit.cleaning.work import Work, save_arrays

PART = 1000


def write_parts(folder: Path, records: int, documents: int, near: bool) -> list[Path]:
    """Records that have nothing in common, each with so many documents."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(records // PART):
        signatures = rng.integers(0, 1 << 16, (PART if near else 0, VALUES)).astype(np.uint16)
        found = Examined(
            rules=np.zeros(PART, np.uint8),
            details=np.full(PART, ""),
            languages=np.full(PART, "en"),
            hashes=rng.integers(0, 1 << 63, PART).astype(np.uint64),
            documents=rng.integers(0, 1 << 63, (PART * documents, 2)).astype(np.uint64),
            document_counts=np.full(PART, documents, np.int32),
            queries=signatures,
            positives=signatures,
        )
        paths.append(folder / f"{number}.npz")
        save_arrays(paths[-1], **{field.name: getattr(found, field.name) for field in fields(found)})
    return paths


def peak(folder: Path, records: int, documents: int, near: float | None) -> int:
    parts = write_parts(folder, records, documents, near is not None)
    tracemalloc.start()
    try:
        decisions = compare(parts, DuplicateOptions(near=near), Work(folder))
        assert len(decisions.kept) == records
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_as_documented(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_STEP", 256)  # what is held of the signatures does not grow
    # Beside it, `Sources` holds 8 bytes a record.
    few, many = (peak(tmp_path / f"records {n}", n, 1, 0.8) for n in (10_000, 30_000))
    assert (many - few) / 20_000 <= 122
    few, many = (peak(tmp_path / f"documents {n}", 10_000, n, None) for n in (2, 8))
    assert (many - few) / 60_000 <= 52
