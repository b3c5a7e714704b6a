"""Seconds and memory of `lit-retrofit clean` with one rule at a time, and of the usual datasketch loop."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasketch import MinHash, MinHashLSH

from lit_retrofit.cleaning.clean import clean
from lit_retrofit.cleaning.options import (
    ConsistencyOptions,
    DuplicateOptions,
    LanguageOptions,
    LeakageOptions,
)
from lit_retrofit.data.formats import read_records

THRESHOLD, VALUES, GRAM = 0.8, 128, 5
OFF: dict[str, Any] = {
    "language": LanguageOptions(confidence=None),
    "duplicates": DuplicateOptions(exact=False, near=None),
    "copied_words": None,
    "garbled": False,
}
NEAR = DuplicateOptions(exact=False, near=THRESHOLD, of="document")
JOBS: dict[str, dict[str, Any]] = {
    "reading, lengths and writing": OFF,
    "+ garbled": OFF | {"garbled": True},
    "+ copied": OFF | {"copied_words": 5},
    "+ language": OFF | {"language": LanguageOptions()},
    "+ exact duplicates": OFF | {"duplicates": DuplicateOptions(near=None)},
    "+ near duplicates (document)": OFF | {"duplicates": NEAR},
    "+ near duplicates (pair)": OFF | {"duplicates": replace(NEAR, of="pair")},
    "+ leakage": OFF | {"leakage": LeakageOptions(against=("quickstart:test",))},
    "+ consistency (bm25)": OFF | {"consistency": ConsistencyOptions(retriever="bm25")},
    "all but consistency": {"leakage": LeakageOptions(against=("quickstart:test",))},
}
PEER = "datasketch's MinHashLSH, as text-dedup and its kin use it"


def peer(path: Path) -> int:
    """The usual loop: a MinHash per document, in a MinHashLSH of the same values and threshold.

    Returns:
        How many documents stay.
    """
    records, _ = read_records(path)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=VALUES)
    kept = 0
    for number, record in enumerate(records):
        text = " ".join(record.positives[0].text.lower().split())
        minhash = MinHash(num_perm=VALUES)
        minhash.update_batch([text[i : i + GRAM].encode() for i in range(max(1, len(text) - GRAM + 1))])
        if not index.query(minhash):
            index.insert(number, minhash)
            kept += 1
    return kept


def run_job(name: str, path: Path, workers: int) -> dict[str, float]:
    """Runs one job in this process; memory is that of the process itself, without its workers."""
    records = sum(1 for _ in path.open(encoding="utf-8"))
    started = time.perf_counter()
    if name == PEER:
        kept = peer(path)
    else:
        output = path.with_name("speed.jsonl")
        kept = clean(str(path), output=output, workers=workers, overwrite=True, **JOBS[name]).kept
    seconds = time.perf_counter() - started
    return {
        "records": records,
        "kept": kept,
        "seconds": seconds,
        "records_per_second": records / seconds,
        "peak_mb": peak_memory(),
    }


def peak_memory() -> float:
    """Megabytes; not `getrusage`, which a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(path: Path, workers: int, tell: Callable[[str], None] = print) -> dict[str, dict[str, float]]:
    """Runs every job in a process of its own, one after another."""
    figures = {}
    for name in (*JOBS, PEER):
        command = [sys.executable, "-m", "benchmarks.cleaning.speed", name, str(path), str(workers)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
        figures[name] = json.loads(done.stdout.splitlines()[-1])
        tell(f"{name}: {figures[name]['records_per_second']:.0f} records/s")
    return figures


def table(figures: dict[str, dict[str, float]], workers: int) -> str:
    """Markdown."""
    lines = [
        f"| {workers} process{'es' if workers > 1 else ''} | records/s | seconds | peak MB | kept |",
        "|---|---|---|---|---|",
    ]
    for name, job in figures.items():
        lines.append(
            f"| {name} | {job['records_per_second']:,.0f} | {job['seconds']:.1f} | {job['peak_mb']:.0f} | "
            f"{job['kept']:,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """One job, for `measure`."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("job", "path", "workers"):
        parser.add_argument(name)
    options = parser.parse_args()
    print(json.dumps(run_job(options.job, Path(options.path), int(options.workers))))


if __name__ == "__main__":
    main()
