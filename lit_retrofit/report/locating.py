"""Finds what belongs to a run: its evaluations, its training, its mining."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.several import SUMMARY, refuse_several

_NAMES = ("before", "after")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where the parts of a report are.

    Attributes:
        name: of the run.
        before: the evaluation of the untrained model.
        after: the evaluation of the trained model.
        training: the run folder of ``fit``.
        mining: the summary of ``mine``.
        home: the folder that all this is in.
    """

    name: str
    before: Path
    after: Path
    training: Path | None
    mining: Path | None
    home: Path


def locate(run: Path, training: Path | None = None, mining: Path | None = None) -> Inputs:
    """Finds the parts of a run.

    Args:
        run: a folder with the evaluations ``before`` and ``after``, and perhaps a run folder of ``fit`` and a
            ``.summary.json`` of ``mine``; or a run folder of ``fit`` that lies beside its evaluations.
        training: the run folder of ``fit``, if the user named it.
        mining: the summary of ``mine``, likewise.

    Raises:
        UserError: there is no such folder, it has the evaluations of several benchmarks, one is missing, or
            several things could be meant.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give a folder with the evaluations before and after")
    fitted = (run / "training.json").is_file() or (run / "checkpoints").is_dir()
    home = run.resolve().parent if fitted and not (run / "after").is_dir() else run
    found = [home / name for name in _NAMES]
    for folder in found:
        if not folder.is_dir():
            if (run / SUMMARY).is_file():
                refuse_several(run)
            raise UserError(
                f"{folder}: no such folder; write it with lit-retrofit evaluate MODEL --data DATA --output "
                f"{folder}, or name the evaluations with --before and --after"
            )
    before, after = found
    model = _evaluated(after)
    if home is not run and model is not None and model.name != run.resolve().name:
        raise UserError(
            f"{after} is the evaluation of {model}, not of {run}; name its evaluations "
            "with --before and --after"
        )
    if training is None:
        training = _only(f"{run} was merged from", _origins(run)) if fitted else _training(home, model)
    return Inputs(run.resolve().name, before, after, training, mining or _mining(home, training), home)


def evaluation_of(side: Path) -> tuple[Path, Path | None]:
    """What ``--compare`` takes: an evaluation, or a run, whose ``after`` counts.

    Args:
        side: the folder of either.

    Returns:
        The evaluation, and the run folder of ``fit`` where it is found.

    Raises:
        UserError: it is neither.
    """
    if any((side / name).is_file() for name in ("metrics.json", "queries.jsonl")):
        model = _evaluated(side)
        found = _origins(model) if model is not None and (model / "training.json").is_file() else []
        return side, found[0] if len(found) == 1 else None
    inputs = locate(side)
    return inputs.after, inputs.training


def _evaluated(evaluation: Path) -> Path | None:
    """The model that an evaluation is of, as it names it; a damaged evaluation is told of when it is read."""
    content = _peek(evaluation / "metrics.json")
    model = content.get("model")
    return Path(model) if isinstance(model, str) else None


def _training(home: Path, model: Path | None) -> Path | None:
    """The run folder behind the evaluated model; else the only one in the folder."""
    finished = sorted(path for path in home.iterdir() if (path / "training.json").is_file())
    unfinished = sorted(path for path in home.iterdir() if (path / "checkpoints").is_dir())
    named = [path for path in (*finished, *unfinished) if model is not None and path.name == model.name]
    if named:
        return _only(f"{named[0]} was merged from", _origins(named[0]))
    # reading an unfinished one says what is wrong with it
    origins = (origin for folder in finished or unfinished for origin in _origins(folder))
    return _only(f"{home} has", list(dict.fromkeys(origins)))


def _only(where: str, runs: Sequence[Path]) -> Path | None:
    if len(runs) > 1:
        names = ", ".join(path.name for path in runs)
        raise UserError(f"{where} several runs of fit ({names}); name one with --training")
    return runs[0] if runs else None


def _origins(folder: Path, seen: tuple[Path, ...] = ()) -> list[Path]:
    """The runs of fit behind a folder: itself, or those that it was merged from, as far as they are found.

    A merge has the training.json of what it was merged from, but neither its log nor its configuration.
    """
    models = _peek(folder / "merging.json").get("models")
    if not isinstance(models, list) or folder in seen:
        return [folder]
    places = (_place(Path(str(model)), folder.parent) for model in models)
    found = [run for place in places if place is not None for run in _origins(place, (*seen, folder))]
    return list(dict.fromkeys(found)) or [folder]


def _place(model: Path, home: Path) -> Path | None:
    """Where a model's run is now: beside its merge, if they were moved together, or as it was named."""
    run = model.parent.parent if model.suffix == ".ckpt" else model
    marks = ("training.json", "checkpoints")
    return next((p for p in (home / run.name, run) if any((p / mark).exists() for mark in marks)), None)


def _mining(home: Path, training: Path | None) -> Path | None:
    """The mining summary whose records were trained on; else the only one in the folder."""
    found = {path: _peek(path) for path in sorted(home.glob("*.summary.json"))}
    # clean and synthesize write summaries too; a damaged one of mine is told of when it is read
    mined = {path: content for path, content in found.items() if not content or "candidates" in content}
    data = _peek(training / "training.json").get("data") if training is not None else None
    sources = data.get("sources", []) if isinstance(data, dict) else []
    names = {Path(source).name for source in sources if isinstance(source, str)}
    used = [path for path, content in mined.items() if Path(str(content.get("output"))).name in names]
    chosen = used or list(mined)
    if len(chosen) > 1:
        listed = ", ".join(path.name for path in chosen)
        raise UserError(f"{home} has several summaries of mine ({listed}); name one with --mining")
    return chosen[0] if chosen else None


def _peek(path: Path) -> dict[str, Any]:
    """A JSON object's content, or nothing where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
