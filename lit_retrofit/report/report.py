"""The command ``report``: what training changed, as one HTML page and a summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.report import terminal
from lit_retrofit.report.building import RIVALS, PageOptions, Sides, build
from lit_retrofit.report.comparison import SIDES
from lit_retrofit.report.locating import evaluation_of, locate
from lit_retrofit.report.page import render
from lit_retrofit.report.several import read_several, render_several
from lit_retrofit.report.summary import Summary

PAGE, SUMMARY = "report.html", "summary.json"


def report(
    runs: list[str] | None = None,
    *,
    before: Path | None = None,
    after: Path | None = None,
    compare: list[str] | None = None,
    output: Path | None = None,
    training: Path | None = None,
    mining: Path | None = None,
    merging: Path | None = None,
    data: str | None = None,
    title: str | None = None,
    examples: int = 5,
    points: int = 160,
    price_per_hour: float | None = None,
    overwrite: bool = False,
) -> list[Summary]:
    """Compares a model before and after training: report.html (one self-contained page) and summary.json.

    Example: lit-retrofit report runs/quickstart

    A run is a folder with the evaluations `before` and `after`, and perhaps the run folder of fit and the
    .summary.json of mine; or a run folder of fit beside its evaluations. Several runs make a page that sets
    them beside each other. Or name the parts: --before, --after, --training, --mining and --output.
    --compare A B sets two trained models against each other.

    The headline numbers are means over the languages trained on; languages never trained on are
    counted apart, as zero-shot. Where no training run is known, all languages count.

    Args:
        runs: folders of runs, one or several.
        before: a folder written by evaluate, of the untrained model.
        after: the same of the trained model, on the same data.
        compare: two runs, or two folders written by evaluate: B against A.
        output: a folder for report.html and summary.json; other files in it stay as they are. A single run's
            own by default.
        training: the run folder of fit.
        mining: the .summary.json that mine wrote.
        merging: the merging.json that merge wrote; found by itself in the evaluated model's folder.
        data: where the evaluated data are now, if they have moved; a BEIR folder, or quickstart:test.
        title: heading of the page.
        examples: how many queries with changed results to show; 0 shows none.
        points: texts in the picture of the embedding space, which both models embed anew; 0 leaves it out and
            loads no model.
        price_per_hour: what an hour of one device costs, in any currency; adds prices to the times.
        overwrite: replace an earlier report.html and summary.json.

    Returns:
        The headline numbers of each run.

    Raises:
        UserError: the output exists, an input is missing or damaged, or the evaluations do not match.
    """
    for name, number in (("examples", examples), ("points", points), ("price_per_hour", price_per_hour or 0)):
        if number < 0:
            raise UserError(f"{name} is {number}; give 0 or more")
    named = {"before": before, "after": after, "training": training, "mining": mining, "merging": merging}
    given = {name: path for name, path in named.items() if path is not None}
    runs = runs or []
    _check_choice(runs, compare, given)
    options = PageOptions(data, title, examples, points, price_per_hour, merging)
    if len(runs) > 1:
        _check_output(output, overwrite)
        several = read_several([Path(run) for run in runs], title, price_per_hour)
        html, summaries = render_several(several), several.summaries
        content: dict[str, Any] = {run.name: run.summary.to_json() for run in several.runs}
        console = Console()
        for run in several.runs:
            console.rule(run.name)
            terminal.show(run.comparison, console)
    else:
        sides, home = _sides(runs, compare, given)
        output = output or home
        _check_output(output, overwrite)
        assert output is not None
        page = build(sides, options, output)
        html, summaries, content = render(page), [page.summary], page.summary.to_json()
        console = Console()
        terminal.show(page.comparison, console)
        for note in page.notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
    assert output is not None
    _write(output, html, content, overwrite)
    console.print(f"report: {output / PAGE}", markup=False, highlight=False, soft_wrap=True)
    return summaries


def _check_choice(runs: Sequence[str], compare: Sequence[str] | None, given: dict[str, Path]) -> None:
    ways = [bool(runs), compare is not None, "before" in given or "after" in given]
    if sum(ways) != 1 or (ways[2] and not {"before", "after"} <= given.keys()):
        raise UserError("give one of these: RUN, several RUNs, --before with --after, or --compare A B")
    if compare is not None and len(compare) != 2:
        raise UserError(f"--compare takes two runs or evaluations, {len(compare)} given: --compare A B")
    if given and (compare is not None or len(runs) > 1):
        raise UserError(f"--{next(iter(given))} goes with a single run; leave it out")


def _sides(
    runs: Sequence[str], compare: Sequence[str] | None, given: dict[str, Path]
) -> tuple[Sides, Path | None]:
    """What to compare, and where the page goes if the user names no place."""
    if compare is not None:
        (first, first_run), (second, second_run) = (evaluation_of(Path(side)) for side in compare)
        return Sides((first, second), RIVALS, (first_run, second_run)), None
    if runs:
        found = locate(Path(runs[0]), given.get("training"), given.get("mining"))
        return Sides((found.before, found.after), SIDES, (None, found.training), found.mining), found.home
    folders = (given["before"], given["after"])
    return Sides(folders, SIDES, (None, given.get("training")), given.get("mining")), None


def _check_output(output: Path | None, overwrite: bool) -> None:
    if output is None:
        raise UserError("name a folder for report.html with --output")
    if output.is_file():
        raise UserError(f"{output} is a file; --output takes the name of a folder")
    for name in (PAGE, SUMMARY):
        if (output / name).exists() and not overwrite:
            raise UserError(
                f"{output / name} already exists; choose another --output, or replace it with --overwrite"
            )


def _write(output: Path, html: str, content: dict[str, Any], overwrite: bool) -> None:
    with new_text_file(output / PAGE, overwrite=overwrite) as file:
        file.write(html)
    with new_text_file(output / SUMMARY, overwrite=overwrite) as file:
        json.dump(content, file, indent=1)
        file.write("\n")
