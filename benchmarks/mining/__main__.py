"""``python -m benchmarks.mining``: the exact search of a million vectors, and mining of 50,000 pairs.

What it holds itself to: the 100 nearest of a million documents for 10,000 queries in less than 4 GB of
resident memory, and the same negatives as sentence-transformers' ``mine_hard_negatives`` at least twice as fast
or in at most half the memory. ``--documents 100000 --queries 1000 --pairs 5000`` tries it in a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

MEMORY_GB = 4.0


def job(name: str, **options: object) -> dict[str, float]:
    """Runs a job of `benchmarks.mining.jobs` in a process of its own."""
    words = [f"--{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.mining.jobs", name, *words]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def main() -> None:
    """Measures, prints the tables and ends with status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/mining"))
    given = parser.parse_args()

    # Makes the vectors, so that the process that is measured only reads them.
    sizes = {"cache": given.cache, "documents": given.documents, "dimension": given.dimension}
    job("search", **sizes, queries=1, k=1)
    found = job("search", **sizes, queries=given.queries, k=given.k)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"exact top {given.k} of {given.documents} × {given.dimension} on disk, {given.queries} queries")
    print(f"  {found['seconds']:.1f} s, peak {found['peak_gb']:.2f} GB resident, the mapped file included")

    print(f"hard negatives of {given.pairs} pairs, embeddings given")
    print("| miner | seconds | memory added, GB | peak, GB |")
    print("|---|---|---|---|")
    rows = {}
    for name, title in (
        ("here", "lit-retrofit"),
        ("there", "sentence-transformers"),
        ("there-faiss", "sentence-transformers, faiss"),
    ):
        rows[name] = job(name, pairs=given.pairs, dimension=given.dimension)
        figures = rows[name]
        print(
            f"| {title} | {figures['seconds']:.1f} | {figures['added_gb']:.2f} | {figures['peak_gb']:.2f} |"
        )
    here = rows["here"]
    kept = found["peak_gb"] < MEMORY_GB
    print(f"memory below {MEMORY_GB:.0f} GB: {'kept' if kept else 'MISSED'}")
    for name in ("there", "there-faiss"):
        speed = rows[name]["seconds"] / here["seconds"]
        memory = here["added_gb"] / max(rows[name]["added_gb"], 1e-9)
        reached = speed >= 2 or memory <= 0.5
        kept &= reached
        print(f"{name}: {speed:.2f} × as fast, {memory:.2f} of its memory: {'kept' if reached else 'MISSED'}")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
