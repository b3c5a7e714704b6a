"""Batches of real pairs with their natural lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Record
from lit_retrofit.quickstart.embedded_data import resolve_data

BESIDE = Path(__file__).parents[3] / "shared" / "data" / "pairs.parquet"
"""A larger data set, where one lies in a folder beside the checkout."""


def default_source() -> str:
    """The larger data set if it is there, else the embedded one."""
    return str(BESIDE) if BESIDE.exists() else "quickstart:train"


def read_pairs(source: str) -> list[Record]:
    """Records with distinct queries and positives, so that every peer embeds the same number of texts."""
    records, _ = read_records(resolve_data(source))
    seen: set[str] = set()
    kept = []
    for record in records:
        texts = {record.query, record.positives[0].text}
        if len(texts) == 2 and not texts & seen:
            kept.append(record)
            seen |= texts
    return kept


def draw_batches(records: list[Record], size: int, count: int, seed: int) -> list[list[Record]]:
    """Batches of different records, at random."""
    if size > len(records):
        raise SystemExit(
            f"--batch-sizes {size}: the data has {len(records)} distinct pairs; give other --data"
        )
    rng = np.random.default_rng(seed)
    return [[records[i] for i in rng.choice(len(records), size, replace=False)] for _ in range(count)]
