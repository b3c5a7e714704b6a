"""Trains and measures arms, each step in a process of its own; what is done is not done again."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablations.data import Data
from benchmarks.ablations.digest import digest
from benchmarks.ablations.plan import BATCH_SIZE, Ablation, Arm, fill, fit_words, names_in
from benchmarks.ablations.selecting import Cut, Selection
from benchmarks.commands import last_line, lit_retrofit
from lit_retrofit.errors import UserError
from lit_retrofit.training.shipped_configs import with_shipped_config

TEST = "quickstart:test"
PROBE_STEPS = 5


@dataclass(frozen=True)
class Budget:
    """What an arm may use.

    Attributes:
        queries: seen in training.
        seconds: of training, instead.
        max_length: tokens of a text when measured.
    """

    queries: int
    seconds: float | None = None
    max_length: int = 128


@dataclass(frozen=True)
class Finished:
    """An arm at one seed.

    Attributes:
        scores: test set → a folder of `evaluate`.
        steps: of training; 0 for the untouched base.
        seconds: of training.
        problem: why there are no scores; None if all went well.
    """

    scores: dict[str, Path]
    steps: int = 0
    seconds: float = 0.0
    problem: str | None = None


class Runner:
    """Runs the arms of an ablation.

    Args:
        ablation: what is asked.
        data: what arms are trained and measured on.
        model: the base, for settings and preparing commands that say {model}, and arms that name none.
        folder: for everything that is written.
        budget: of each arm.
    """

    def __init__(self, ablation: Ablation, data: Data, model: str, folder: Path, budget: Budget) -> None:
        self._ablation, self._data, self._model = ablation, data, model
        self._folder, self._budget = folder, budget
        self._known: dict[str, str | Path] = {"train": data.train, "all": data.all, "model": model}
        for name, how in ablation.prepare.items():
            suffix = "" if isinstance(how, Cut) else ".jsonl"
            words = [fill(word, self._known) for word in how] if isinstance(how, tuple) else how
            made_from = [self._known[other] for other in names_in(how)]
            own = digest(words, made_from, data.train)
            self._known[name] = folder / "prepared" / f"{name}-{own}{suffix}"

    @property
    def known(self) -> Mapping[str, str | Path]:
        """What stands for each name in braces."""
        return self._known

    def base(self) -> Finished:
        """The model that the baseline arm starts from, untouched."""
        (arm,) = (arm for arm in self._ablation.arms if arm.name == self._ablation.baseline)
        settings = self._ablation.settings_of(arm)
        model = fill(str(settings.get("model.encoder.model", self._model)), self._known)
        log = self._folder / f"base-{digest(model)}.log"
        try:
            self._prepare(names_in(settings.get("model.encoder.model", "")))
            return Finished(self._measure(model, log.stem, log))
        except subprocess.CalledProcessError as error:
            raise UserError(f"{model}: {last_line(log) or f'status {error.returncode}'}") from None

    def run(self, arm: Arm, seed: int) -> Finished:
        """Trains an arm and measures it; a command that fails is told in `problem`."""
        name = self._name(arm, seed)
        log = self._folder / f"{name}.log"
        try:
            run, steps, seconds = self._train(arm, seed, log)
            model = self._merged(arm, run, log) if arm.after else run
            return Finished(self._measure(model, model.name, log), steps, seconds)
        except subprocess.CalledProcessError as error:
            return Finished({}, problem=last_line(log) or f"status {error.returncode}")
        except UserError as error:
            return Finished({}, problem=str(error))

    def _name(self, arm: Arm, seed: int) -> str:
        """By what is run: arms that train alike share a run, and a changed one has another."""
        words = self._words(arm)
        files = [
            Path(word).read_bytes() for word in words if Path(word).suffix == ".yaml" and Path(word).is_file()
        ]
        return f"fit-{digest(words, files, self._budget, self._data.train)}-{seed}"

    def _words(self, arm: Arm) -> list[str]:
        words = fit_words(self._ablation, arm, self._known)
        if "model.encoder.model" not in self._ablation.settings_of(arm):
            words.append(f"--model.encoder.model={self._model}")
        return words

    def _train(self, arm: Arm, seed: int, log: Path) -> tuple[Path, int, float]:
        run = self._folder / self._name(arm, seed)
        if not (run / "training.json").is_file():  # written last
            self._prepare(names_in(self._ablation.settings_of(arm)))
            print(f"{arm.name}, seed {seed}: training", flush=True)
            self._fit(arm, seed, self._steps(arm, seed, log), run, log)
        card = json.loads((run / "training.json").read_text(encoding="utf-8"))
        return run, int(card["steps"]), float(card["seconds"])

    def _fit(self, arm: Arm, seed: int, steps: int, run: Path, log: Path) -> None:
        settings = self._ablation.settings_of(arm)
        whole = [] if "trainer.limit_train_batches" in settings else ["--trainer.limit_train_batches=1.0"]
        lit_retrofit(
            "fit", *self._words(arm), *whole, f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1",
            f"--seed_everything={seed}", f"--data.sampling.seed={seed}", "--wandb=false",
            "--trainer.enable_progress_bar=false", f"--output={run}", "--overwrite", log=log,
        )  # fmt: skip

    def _steps(self, arm: Arm, seed: int, log: Path) -> int:
        """As many as the budget has; of seconds, by a short run before."""
        if self._budget.seconds is None:
            return max(1, self._budget.queries // batch_size(self._ablation, arm))
        probe = self._folder / f"probe-{self._name(arm, seed)}"
        self._fit(arm, seed, PROBE_STEPS, probe, log)
        card = json.loads((probe / "training.json").read_text(encoding="utf-8"))
        return max(1, round(self._budget.seconds * card["steps"] / card["seconds"]))

    def _merged(self, arm: Arm, run: Path, log: Path) -> Path:
        words = [fill(word, {"run": run, **self._known}) for word in arm.after]
        output = self._folder / f"merged-{digest(words)}"
        if not (output / "merging.json").is_file():
            lit_retrofit(*words, "--output", output, log=log)
        return output

    def _measure(self, model: str | Path, name: str, log: Path) -> dict[str, Path]:
        scores = {}
        for test_set, data in (("dev", self._data.dev), (TEST, TEST)):
            own = digest(self._data.dev) if test_set == "dev" else "test"
            output = scores[test_set] = self._folder / f"scores-{name}-{own}"
            if not (output / "metrics.json").is_file():  # written last
                lit_retrofit(
                    "evaluate", model, "--data", data, "--max_length", str(self._budget.max_length),
                    "--precision", "auto", "--output", output, "--overwrite", log=log,
                )  # fmt: skip
        return scores

    def _prepare(self, names: list[str]) -> None:
        """Makes data that is not there, and first what it is made from."""
        for name in names:
            how, output = self._ablation.prepare.get(name), Path(self._known[name])
            done = output.with_name(output.name + ".done")
            if how is None or done.is_file():
                continue
            self._prepare(names_in(how))
            output.parent.mkdir(parents=True, exist_ok=True)
            started = time.time()
            self._make(name, how, output)
            done.write_text(f"{time.time() - started:.1f} s\n", encoding="utf-8")

    def _make(self, name: str, how: tuple[str, ...] | Selection | Cut, output: Path) -> None:
        print(f"preparing {name}", flush=True)
        if isinstance(how, Cut):
            how.write(self._model, output)
        elif isinstance(how, Selection):
            how.write(name, Path(fill(how.source, self._known)), output)
        else:
            log = output.with_suffix(".log")
            words = [fill(word, self._known) for word in how]
            try:
                lit_retrofit(*words, "--output", output, "--overwrite", log=log)
            except subprocess.CalledProcessError as error:
                problem = last_line(log) or f"status {error.returncode}"
                raise UserError(f"prepare '{name}': {problem}") from None


def batch_size(ablation: Ablation, arm: Arm) -> int:
    """Queries of a step."""
    given: Any = ablation.settings_of(arm).get(BATCH_SIZE)
    for config in reversed((ablation.base, *arm.configs)):
        content = yaml.safe_load(Path(with_shipped_config(config)).read_text(encoding="utf-8"))
        given = given or content.get("data", {}).get("sampling", {}).get("batch_size")
    return int(given or 64)
