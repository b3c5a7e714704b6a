"""The command ``report``: what training changed, as one HTML page and a summary."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data
from lit_retrofit.report import terminal
from lit_retrofit.report.changed_queries import Counts, ShownQuery, choose, read_changed, show
from lit_retrofit.report.comparison import Comparison, compare
from lit_retrofit.report.merging import find_merging
from lit_retrofit.report.page import Page, render
from lit_retrofit.report.sources import TrainingRun, read_mining, read_training
from lit_retrofit.report.summary import Summary, summarise

PAGE, SUMMARY = "report.html", "summary.json"


def report(
    *,
    before: Path,
    after: Path,
    output: Path,
    training: Path | None = None,
    mining: Path | None = None,
    merging: Path | None = None,
    data: str | None = None,
    title: str | None = None,
    examples: int = 5,
    overwrite: bool = False,
) -> Summary:
    """Compares a model before and after training: report.html (one self-contained page) and summary.json.

    Example: lit-retrofit report --before runs/quickstart/before --after runs/quickstart/after
    --training runs/quickstart/fit --output runs/quickstart

    The headline numbers are means over the languages trained on; languages never trained on are
    counted apart, as zero-shot. Without --training, all languages count.

    Args:
        before: a folder written by evaluate, of the untrained model.
        after: the same of the trained model, on the same data.
        output: a folder for report.html and summary.json; other files in it stay as they are.
        training: the run folder of fit.
        mining: the .summary.json that mine wrote.
        merging: the merging.json that merge wrote; found by itself in the evaluated model's folder.
        data: where the evaluated data are now, if they have moved; a BEIR folder, or quickstart:test.
        title: heading of the page.
        examples: how many queries with changed results to show; 0 shows none and reads no data.
        overwrite: replace an earlier report.html and summary.json.

    Returns:
        The headline numbers.

    Raises:
        UserError: the output exists, an input is missing or damaged, or the evaluations do not match.
    """
    _check_output(output, overwrite)
    if examples < 0:
        raise UserError(f"examples is {examples}; give 0 or more")
    run = read_training(training) if training else None
    mined = read_mining(mining) if mining else None
    comparison = compare(before, after, run.trained if run else None)
    merged = find_merging(merging, Path(comparison.after.model))
    counts, shown = _examples(before, after, comparison, data, examples) if examples else (None, [])
    summary = summarise(comparison, time.time() - _first_start(comparison, run, mined))
    page = Page(
        title=title or f"{comparison.before.model}, before and after training",
        comparison=comparison,
        summary=summary,
        counts=counts,
        examples=shown,
        training=run,
        mining=mined,
        merging=merged,
        output=output,
    )
    html = render(page)
    with new_text_file(output / PAGE, overwrite=overwrite) as file:
        file.write(html)
    with new_text_file(output / SUMMARY, overwrite=overwrite) as file:
        json.dump(summary.to_json(), file, indent=1)
        file.write("\n")
    console = Console()
    terminal.show(comparison, console)
    console.print(f"report: {output / PAGE}", markup=False, highlight=False, soft_wrap=True)
    return summary


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_file():
        raise UserError(f"{output} is a file; --output takes the name of a folder")
    for name in (PAGE, SUMMARY):
        if (output / name).exists() and not overwrite:
            raise UserError(
                f"{output / name} already exists; choose another --output, or replace it with --overwrite"
            )


def _examples(
    before: Path, after: Path, comparison: Comparison, data: str | None, number: int
) -> tuple[Counts, list[ShownQuery]]:
    changed, counts = read_changed(before, after)
    chosen = choose(changed, number)
    return counts, show(chosen, comparison.tasks, _read_data(comparison, data)) if chosen else []


def _read_data(comparison: Comparison, data: str | None) -> RetrievalSet:
    path = resolve_data(data or comparison.after.data)
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder; give the evaluated data's new place with --data, or show no queries "
            "with --examples 0"
        )
    # What to do about invalid rows was decided when the data were evaluated.
    return read_beir(path, split=comparison.after.settings.get("split"), skip_invalid=True)


def _first_start(comparison: Comparison, run: TrainingRun | None, mined: dict[str, Any] | None) -> float:
    starts = [comparison.before.started, comparison.after.started]
    starts += [run.card["started"]] if run else []
    starts += [mined["started"]] if mined else []
    return min(starts)
