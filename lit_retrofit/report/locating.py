"""Finds what belongs to a run: its evaluations, its training, its mining."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError

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


def locate(run: Path) -> Inputs:
    """Finds the parts of a run.

    Args:
        run: a folder with the evaluations ``before`` and ``after``, and perhaps a run folder of ``fit`` and a
            ``.summary.json`` of ``mine``; or a run folder of ``fit`` that lies beside its evaluations.

    Raises:
        UserError: there is no such folder, an evaluation is missing, or several things could be meant.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give a folder with the evaluations before and after")
    fitted = (run / "training.json").is_file() or (run / "checkpoints").is_dir()
    home = run.resolve().parent if fitted and not (run / "after").is_dir() else run
    found = [home / name for name in _NAMES]
    for folder in found:
        if not folder.is_dir():
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
    training = run if fitted else _training(home, model)
    return Inputs(run.resolve().name, before, after, training, _mining(home, training), home)


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
        return side, model if model is not None and (model / "training.json").is_file() else None
    found = locate(side)
    return found.after, found.training


def _evaluated(evaluation: Path) -> Path | None:
    """The model that an evaluation is of, as it names it; a damaged evaluation is told of when it is read."""
    content = _peek(evaluation / "metrics.json")
    model = content.get("model")
    return Path(model) if isinstance(model, str) else None


def _training(home: Path, model: Path | None) -> Path | None:
    """The run folder that the evaluated model is; else the only one in the folder."""
    folders = sorted(path for path in home.iterdir() if (path / "training.json").is_file())
    unfinished = sorted(path for path in home.iterdir() if (path / "checkpoints").is_dir())
    if model is not None:
        if (model / "training.json").is_file() and model.resolve().parent == home.resolve():
            return model
        named = [path for path in {*folders, *unfinished} if path.name == model.name]
        if named:
            return named[0]
    candidates = folders or unfinished  # reading an unfinished one says what is wrong with it
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise UserError(f"{home} has several runs of fit ({names}); name one with --training")
    return candidates[0] if candidates else None


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
