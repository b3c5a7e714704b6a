"""The recipe as a user runs it: mine, then fit."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.commands import lit_retrofit

RECIPE = "configs/recipes/quickstart.yaml"
PROBE_STEPS = 8
ENOUGH = 0.95
"""Of the time: a training that used less, its probe being slow, is done again with as many steps as fit."""


def train(records: Path, model: str, seconds: float, seed: int, folder: Path, log: Path) -> dict[str, Any]:
    """Mines and trains; returns what `training.json` says, its seconds with those of mining.

    Args:
        records: to train on.
        model: the base.
        seconds: for both.
        seed: of the order and the draws.
        folder: for the mined records and the run.
        log: for what is printed.
    """
    mined = folder / "mined.jsonl"
    begin = time.perf_counter()
    lit_retrofit(
        "mine", model, "--data", records, "--pool", "language", "--max_length", "64", "--min_negatives", "0",
        "--output", mined, "--overwrite", log=log,
    )  # fmt: skip
    mining = time.perf_counter() - begin
    probe = _fit(mined, model, PROBE_STEPS, seed, folder / "probe", log)
    steps = max(1, round((seconds - mining) * probe["steps"] / probe["seconds"]))
    card = _fit(mined, model, steps, seed, folder / "fit", log)
    if card["seconds"] < ENOUGH * (seconds - mining):
        steps = round(steps * (seconds - mining) / card["seconds"])
        card = _fit(mined, model, steps, seed, folder / "fit", log)
    return card | {"seconds": card["seconds"] + mining}


def _fit(mined: Path, model: str, steps: int, seed: int, run: Path, log: Path) -> dict[str, Any]:
    lit_retrofit(
        "fit", "--config", RECIPE, f"--model.encoder.model={model}", f"--data.options.train=[{mined}]",
        "--data.options.validation_share=0", "--trainer.limit_train_batches=1.0",
        f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", f"--seed_everything={seed}",
        f"--data.sampling.seed={seed}", "--trainer.enable_progress_bar=false", f"--output={run}",
        "--overwrite", log=log,
    )  # fmt: skip
    return json.loads((run / "training.json").read_text(encoding="utf-8"))
