"""Pairs to clean: real ones, repeated with edits until there are enough."""

from __future__ import annotations

import json
import random
from pathlib import Path

from lit_retrofit.data.formats import read_records
from lit_retrofit.quickstart.embedded_data import resolve_data

_REPEATED = 0.3  # share of the pairs that are copies


def write_pairs(source: str, count: int, path: Path, seed: int = 0) -> None:
    """Writes pairs of a source, of which 30 % are copies of earlier ones: half of them equal, half edited.

    Args:
        source: records to draw from; drawn again where there are too few.
        count: pairs to write.
        path: a JSONL file.
        seed: of what is copied and edited.
    """
    rng = random.Random(seed)
    records, _ = read_records(resolve_data(source))
    rng.shuffle(records)
    rows: list[dict[str, str | None]] = []
    fresh = 0
    while len(rows) < count:
        if rows and rng.random() < _REPEATED:
            row = dict(rng.choice(rows))
            if rng.random() < 0.5:
                row["positive"] = _edited(str(row["positive"]), rng)
        else:
            record = records[fresh % len(records)]
            text = record.positives[0].text
            row = {"query": record.query, "positive": text, "language": record.language}
            fresh += 1
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _edited(text: str, rng: random.Random) -> str:
    """Two words less: most copies stay near duplicates."""
    words = text.split()
    for _ in range(2):
        if len(words) > 2:
            del words[rng.randrange(len(words))]
    return " ".join(words)
