"""Runs trials as processes of `lit-retrofit fit`, one after the other, and keeps what came of them."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import Interrupted, UserError
from lit_retrofit.sweeps.samplers import Values
from lit_retrofit.sweeps.space import Sweep, words_of

RESULT = "trial.json"
# What the console script does.
_ENTRY = "import sys; from lit_retrofit.cli import main; sys.exit(main())"
_STOPPED = {128 + signal.SIGINT: signal.SIGINT, 128 + signal.SIGTERM: signal.SIGTERM}


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        folder: a run folder of `fit`.
        values: its parameters.
        score: the best value of the metric; None where the trial failed.
        seconds: wall time.
        problem: why it failed.
    """

    folder: Path
    values: Values
    score: float | None
    seconds: float
    problem: str | None = None


class Trials:
    """The trials of a sweep in a folder.

    Args:
        sweep: what is run.
        output: a folder; each trial's run is in one of its own in there, with its log beside it.
        wandb: log each trial to W&B, in a group of the sweep's name.
    """

    def __init__(self, sweep: Sweep, output: Path, *, wandb: bool) -> None:
        self._sweep, self._output, self._wandb = sweep, output, wandb

    def run(self, number: int, values: Values) -> tuple[Trial, bool]:
        """Runs a trial, or goes on with one that was stopped, or takes the result of one that has ended.

        Returns:
            The trial, and whether its result was there already.

        Raises:
            Interrupted: by Ctrl-C or SIGTERM, after the trial has saved its state.
            UserError: the metric of the sweep is not logged.
        """
        folder = self._folder(number, values)
        earlier = self._read(folder, values)
        if earlier is not None:
            return earlier, True
        started = time.time()
        status = self._start(folder, values)
        if status in _STOPPED:
            raise Interrupted(
                f"stopped in {folder}; the same command goes on there, with the trials that are left",
                _STOPPED[status],
            )
        seconds = time.time() - started
        if status == 0:
            score = best_value(folder / "metrics.csv", self._sweep.metric, self._sweep.maximize)
            trial = Trial(folder, values, score, seconds)
        else:
            trial = Trial(folder, values, None, seconds, _last_line(self._log(folder)) or f"status {status}")
        self._write(trial)
        return trial, False

    def _folder(self, number: int, values: Values) -> Path:
        """Named by what it runs: if a config file or a value changes it is another trial."""
        content: list[Any] = [self._sweep.words, sorted((name, repr(v)) for name, v in values.items())]
        content += [_content(word.removeprefix("--config=")) for word in self._sweep.words]
        digest = hashlib.blake2b(repr(content).encode(), digest_size=4).hexdigest()
        earlier = sorted(self._output.glob(f"trial-*-{digest}"))
        return earlier[0] if earlier else self._output / f"trial-{number:03}-{digest}"

    def _log(self, folder: Path) -> Path:
        return folder.with_name(folder.name + ".log")

    def _start(self, folder: Path, values: Values) -> int:
        last = folder / "checkpoints" / "last.ckpt"
        going_on = [f"--ckpt_path={last}"] if last.is_file() else ["--overwrite"]
        words = [
            "fit", *self._sweep.words, *words_of(values), f"--output={folder}", *going_on,
            f"--wandb={str(self._wandb).lower()}", "--trainer.enable_progress_bar=false",
        ]  # fmt: skip
        self._output.mkdir(parents=True, exist_ok=True)
        with self._log(folder).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _ENTRY, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=self._environment(folder),
            )  # fmt: skip
            with _signals_go_to(process):
                return process.wait()

    def _environment(self, folder: Path) -> dict[str, str]:
        """What W&B's client reads. As with `wandb sweep`, the user's own environment wins over the file."""
        own = dict(os.environ)
        if not self._wandb:
            return own
        of_file = {"WANDB_PROJECT": self._sweep.project, "WANDB_ENTITY": self._sweep.entity}
        named = {name: value for name, value in of_file.items() if value}
        return {**named, **own, "WANDB_RUN_GROUP": self._sweep.name, "WANDB_NAME": folder.name}

    def _read(self, folder: Path, values: Values) -> Trial | None:
        """The result of a trial that has ended well."""
        path = folder / RESULT
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            score, seconds = content["score"], float(content["seconds"])
        except (ValueError, KeyError, TypeError):
            return None  # cut short: it runs again
        if score is None or content.get("metric") != self._sweep.metric:
            return None
        return Trial(folder, values, float(score), seconds)

    def _write(self, trial: Trial) -> None:
        trial.folder.mkdir(parents=True, exist_ok=True)
        content = asdict(trial) | {"folder": trial.folder.name, "metric": self._sweep.metric, "format": 1}
        with new_text_file(trial.folder / RESULT, overwrite=True) as file:
            json.dump(content, file, indent=1, ensure_ascii=False)


@contextmanager
def _signals_go_to(process: subprocess.Popen) -> Iterator[None]:
    """Ctrl-C reaches the whole process group by itself; SIGTERM is handed on. Both let the trial save."""

    def hand_on(number: int, _: Any) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _content(word: str) -> bytes:
    path = Path(word)
    return path.read_bytes() if path.suffix in (".yaml", ".yml") and path.is_file() else b""


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("lit-retrofit fit: error: ")]
    found = errors[-1].removeprefix("lit-retrofit fit: error: ") if errors else next(iter(lines[-1:]), "")
    return found[:300]


def best_value(log: Path, metric: str, maximize: bool) -> float:
    """The best value that a run logged: that of the checkpoint which `evaluate` takes.

    Args:
        log: the run's metrics.csv.
        metric: the column.
        maximize: whether more is better.

    Raises:
        UserError: there is no finite value of it.
    """
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row[metric]) for row in rows if row.get(metric)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        known = sorted({name for row in rows for name, value in row.items() if name and value})
        raise UserError(f"{log}: the metric '{metric}' is not logged; there are {', '.join(known)}")
    return max(finite) if maximize else min(finite)


def best_first(trials: Sequence[Trial], maximize: bool) -> list[Trial]:
    """By score; those that failed last."""
    sign = -1 if maximize else 1
    return sorted(trials, key=lambda t: math.inf if t.score is None else sign * t.score)
