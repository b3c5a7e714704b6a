"""Retrieval quality after equal training time: a finished lit-retrofit run against sentence-transformers.

    make quickstart
    python -m benchmarks.quality_at_equal_time --run runs/quickstart

sentence-transformers gets the same base model, the same training records (without the validation groups),
the same LoRA rank, precision, document length and share of cross-lingual positives, its
MultipleNegativesRankingLoss at the same temperature, and as many seconds of training as the run took.
Its number of steps is planned from the measured time of its first steps, so that its learning rate
ends where its time does. Both are measured by `lit-retrofit evaluate` on the same test set.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from transformers import TrainerCallback

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.parallel import add_parallel_positives
from lit_retrofit.data.splitting import split_by_group
from lit_retrofit.evaluation.evaluate import evaluate
from lit_retrofit.evaluation.results import Results, read_results
from lit_retrofit.model.lora import find_targets
from lit_retrofit.model.source import resolve_model
from lit_retrofit.quickstart.embedded_data import resolve_data

PROBE_STEPS = 3


class StopAtTime(TrainerCallback):
    """Ends training once its seconds are used up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.started, self.step_ends = seconds, 0.0, []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks at it."""
        self.step_ends.append(time.perf_counter() - self.started)
        control.should_training_stop |= self.step_ends[-1] >= self.seconds


def training_pairs(config: dict[str, Any], epochs: int) -> Dataset:
    """(anchor, positive) rows with prompts, the positives drawn anew for each epoch."""
    data, sampling = config["data"]["options"], config["data"]["sampling"]
    records, _ = read_records(resolve_data("quickstart:train"))
    train, _ = split_by_group(add_parallel_positives(records), data["validation_share"], data["seed"])
    rng = np.random.default_rng(sampling["seed"])
    rows = []
    for _ in range(epochs):
        for i in rng.permutation(len(train)):
            own, *others = train[i].positives
            across = others and rng.random() < sampling["cross_lingual"]
            positive = others[rng.integers(len(others))] if across else own
            rows.append({"anchor": "query: " + train[i].query, "positive": "passage: " + positive.text})
    return Dataset.from_list(rows)


def train(
    config: dict[str, Any], precision: str, steps: int, seconds: float, folder: Path
) -> tuple[SentenceTransformer, StopAtTime]:
    """Trains the base model with sentence-transformers' own trainer."""
    lora, optimizer = config["model"]["encoder"]["lora"], config["model"]["optimizer"]
    model = SentenceTransformer(resolve_model(config["model"]["encoder"]["model"]), device="cpu")
    model.max_seq_length = config["data"]["options"]["training_document_length"]
    targets = find_targets(model[0].auto_model)
    model.add_adapter(LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=targets))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config["data"]["sampling"]["batch_size"],
        max_steps=steps,
        learning_rate=optimizer["learning_rate"],
        warmup_steps=round(steps * optimizer["warmup"]),
        bf16=precision == "bf16-mixed",
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        seed=config["seed_everything"],
        disable_tqdm=True,
    )
    loss = MultipleNegativesRankingLoss(model, scale=1 / config["model"]["objective"]["temperature"])
    clock = StopAtTime(seconds)
    pairs = training_pairs(config, epochs=3)
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=pairs, loss=loss, callbacks=[clock]
    ).train()
    return model, clock


def merge_adapters(backbone: Any) -> None:
    """Folds the adapters that `add_adapter` injected into the layers they wrap."""
    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    backbone._hf_peft_config_loaded = False  # or only the adapters would be saved


def main() -> None:
    """Trains the peer, measures it, writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality_at_equal_time.md"))
    arguments = parser.parse_args()
    config = yaml.safe_load((arguments.run / "fit" / "config.yaml").read_text())
    card = json.loads((arguments.run / "fit" / "training.json").read_text())
    seconds, precision = card["seconds"], card["precision"]
    scratch = arguments.run / "sentence-transformers"
    _, probe = train(config, precision, PROBE_STEPS, seconds, scratch)
    # The first step also pays for allocations.
    per_step = (probe.step_ends[-1] - probe.step_ends[0]) / (PROBE_STEPS - 1)
    model, clock = train(config, precision, max(1, round(seconds / per_step)), seconds, scratch)
    merge_adapters(model[0].auto_model)
    model.max_seq_length = 512
    model.save_pretrained(str(scratch / "model"), create_model_card=False)
    theirs = evaluate(
        str(scratch / "model"),
        data="quickstart:test",
        max_length=128,
        output=scratch / "after",
        overwrite=True,
    )
    rows = {
        "base model": read_results(arguments.run / "before"),
        f"sentence-transformers, {len(clock.step_ends)} steps in {clock.step_ends[-1]:.0f} s": theirs,
        f"lit-retrofit, {seconds:.0f} s": read_results(arguments.run / "after"),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(table(rows, config, precision))
    print(arguments.output.read_text())


def table(rows: dict[str, Results], config: dict[str, Any], precision: str) -> str:
    """Markdown: mean nDCG@10 per kind of task."""
    trained = sorted({r.language for r in read_records(resolve_data("quickstart:train"))[0] if r.language})
    lines = [
        "# Retrieval quality at equal training time",
        "",
        "`python -m benchmarks.quality_at_equal_time --run runs/quickstart`, nDCG@10 on quickstart:test, "
        f"batch {config['data']['sampling']['batch_size']}, {precision}.",
        "",
        "| | monolingual | X → en | en → X | zero-shot monolingual |",
        "|---|---|---|---|---|",
    ]
    for name, results in rows.items():
        cells = [
            mean(results, lambda q, d: q == d and q in trained),
            mean(results, lambda q, d: q != d == "en" and q in trained),
            mean(results, lambda q, d: d != q == "en" and d in trained),
            mean(results, lambda q, d: q == d and q not in trained),
        ]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def mean(results: Results, belongs: Any) -> float:
    """The mean over the tasks whose (query language, corpus language) belongs."""
    scores = [t.scores["nDCG@10"] for t in results.tasks if belongs(t.query_language, t.corpus_language)]
    return sum(scores) / len(scores)


if __name__ == "__main__":
    main()
