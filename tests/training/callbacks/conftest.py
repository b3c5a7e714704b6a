"""Whole runs with a tiny model: nine steps in three epochs, dropout on, a validation after each epoch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lit_retrofit.cli import main

ROOT = Path(__file__).parents[3]
INJECTED = str(Path(__file__).parent)  # the folder of `injected`


def pair(i: int) -> dict:
    language = ("en", "de")[i % 2]
    row = {"query": f"what of {i}{i}", "positive": f"page {i}{i} tells {i}", "language": language}
    return {**row, "negative_1": f"page {i + 40} tells nothing", "negative_2": f"word {i}"}


class Run:
    """Starts runs of one configuration in one folder, and reads what they leave."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.folder, self._words = folder, words

    def words(self, *extra: str, name: str = "run") -> list[str]:
        return ["fit", "--output", str(self.folder / name), *self._words, *extra]

    def __call__(self, *extra: str, name: str = "run") -> int:
        return main(self.words(*extra, name=name))

    def process(self, *extra: str, name: str = "run", code: str = "pass") -> subprocess.CompletedProcess[str]:
        """In a process of its own, after `code`."""
        start = f"import sys; {code}; from lit_retrofit.cli import main; sys.exit(main(sys.argv[1:]))"
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), INJECTED])
        return subprocess.run(
            [sys.executable, "-c", start, *self.words(*extra, name=name)],
            env={**os.environ, "PYTHONPATH": path}, text=True, capture_output=True, timeout=240,
        )  # fmt: skip

    def checkpoint(self, name: str = "run", file: str = "last") -> str:
        return str(self.folder / name / "checkpoints" / f"{file}.ckpt")

    def content(self, name: str = "run", file: str = "last") -> dict:
        return torch.load(self.checkpoint(name, file), weights_only=True)

    def column(self, key: str, name: str = "run") -> list[float]:
        with (self.folder / name / "metrics.csv").open() as file:
            return [float(line[key]) for line in csv.DictReader(file) if line.get(key)]

    def same_weights(self, a: str, b: str) -> bool:
        first, second = self.content(a)["state_dict"], self.content(b)["state_dict"]
        assert first.keys() == second.keys() and first
        return all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def run(bert_folder, tmp_path, monkeypatch) -> Run:
    monkeypatch.syspath_prepend(INJECTED)
    monkeypatch.delenv("JSONARGPARSE_DEBUG", raising=False)
    for part, rows in (("train", range(30)), ("validation", range(30, 40))):
        lines = "".join(json.dumps(pair(i)) + "\n" for i in rows)
        (tmp_path / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    words = [
        "--model.encoder.model", str(bert_folder), "--model.encoder.lora.r", "4",
        "--model.encoder.lora.dropout", "0.1", "--model.encoder.dropout", "0.1",
        "--model.objective.temperature", "0.1", "--model.optimizer.learning_rate", "0.01",
        "--data.options.train", f"[{tmp_path / 'train.jsonl'}]",
        "--data.options.validation", str(tmp_path / "validation.jsonl"),
        "--data.options.token_budget", "100", "--data.sampling.batch_size", "10",
        "--trainer.accelerator", "cpu", "--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "1",
        "--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true", "--wandb", "false",
    ]  # fmt: skip
    return Run(tmp_path, words)


@pytest.fixture
def injected() -> Callable[..., tuple[str, ...]]:
    """The words that add a callback of `injected`."""

    def words(callback: str, /, **options: object) -> tuple[str, ...]:
        given = (f"--trainer.callbacks.{key}={value}" for key, value in options.items())
        return (f"--trainer.callbacks+=injected.{callback}", *given)

    return words
