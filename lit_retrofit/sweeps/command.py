"""The command ``sweep``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.sweeps.samplers import Outcome, make_sampler
from lit_retrofit.sweeps.space import MethodName, Sweep, names_of, read_sweep
from lit_retrofit.sweeps.trials import Trial, Trials, best_first

TABLE = "sweep.json"


def sweep(
    file: Path,
    *,
    output: Path,
    method: MethodName | None = None,
    max_runs: int | None = None,
    seed: int = 0,
    wandb: bool = False,
) -> list[Trial]:
    """Runs the trials of a W&B sweep file on this machine, one after the other, and ranks them.

    Example: lit-retrofit sweep configs/sweeps/temperature_batch.yaml --output runs/sweep

    The same file goes to `wandb sweep`; this command needs no account and no network. Every value is checked
    before the first trial. A sweep that was stopped goes on with the same command: trials that have ended are
    not run again, and one that was under way goes on from its last checkpoint.

    Args:
        file: a sweep file in W&B's format.
        output: a folder for the trials, each a run folder of fit, and sweep.json.
        method: grid, random or bayes (Optuna's), instead of the file's.
        max_runs: at most so many trials; also the file's run_cap.
        seed: of random and bayes.
        wandb: log each trial to Weights & Biases, grouped under the sweep's name.

    Returns:
        The trials, best first.

    Raises:
        UserError: the file has a mistake, names an option that fit lacks, or trials failed.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    from lit_retrofit.sweeps.checking import check_sweep

    if max_runs is not None and max_runs < 1:
        raise UserError(f"max_runs is {max_runs}; give 1 or more")
    if output.is_file():
        raise UserError(f"{output} is a file; --output takes the name of a folder")
    given = read_sweep(file)
    sampler = make_sampler(given, method or given.method, max_runs, seed)
    check_sweep(given)
    console = Console()
    for note in given.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    trials, ended = Trials(given, output, wandb=wandb), list[Trial]()
    outcomes: list[Outcome] = []
    while (values := sampler.next(outcomes)) is not None:
        trial, known = trials.run(len(ended), values)
        ended.append(trial)
        outcomes.append(Outcome(values, trial.score))
        console.print(_line(given, trial, known), markup=False, highlight=False, soft_wrap=True)
        _write(given, output, ended)
    ranked = best_first(ended, given.maximize)
    _show(given, ranked, console)
    failed = [trial for trial in ended if trial.score is None]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(ended)} trials failed, the first with: {failed[0].problem} "
            f"({failed[0].folder}.log); the same command runs them again"
        )
    return ranked


def _line(sweep: Sweep, trial: Trial, known: bool) -> str:
    score = f"failed: {trial.problem}" if trial.score is None else f"{sweep.metric} {trial.score:.4f}"
    time = "already there" if known else f"{trial.seconds:.0f} s"
    return f"{trial.folder.name}: {score} ({time}) {_settings(sweep, trial)}"


def _settings(sweep: Sweep, trial: Trial) -> str:
    names = names_of(sweep.parameters)
    return ", ".join(f"{name.split('.')[-1]} {_short(trial.values[name])}" for name in names)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(sweep: Sweep, ranked: Sequence[Trial], console: Console) -> None:
    table = Table(title=Text(f"{sweep.name}: {sweep.metric}"), box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", no_wrap=True)
    table.add_column(sweep.metric.split("/")[-1], justify="right")
    names = names_of(sweep.parameters)
    for name in names:
        table.add_column(name.split(".")[-1], justify="right")
    table.add_column("s", justify="right")
    for at, trial in enumerate(ranked):
        score = "failed" if trial.score is None else f"{trial.score:.4f}"
        cells = [trial.folder.name, score, *(_short(trial.values[n]) for n in names), f"{trial.seconds:.0f}"]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if at == 0 else "")
    console.print(table)


def _write(sweep: Sweep, output: Path, ended: Sequence[Trial]) -> None:
    ranked = [asdict(t) | {"folder": t.folder.name} for t in best_first(ended, sweep.maximize)]
    content: dict[str, Any] = {"format": 1, "name": sweep.name, "file": str(sweep.path)}
    content |= {"metric": sweep.metric, "trials": ranked}
    with new_text_file(output / TABLE, overwrite=True) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
