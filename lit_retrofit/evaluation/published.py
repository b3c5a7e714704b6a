"""Published scores beside the user's own; the data file names their sources."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.evaluation.results import Results

_NAMED = 3  # languages in a message


@dataclass(frozen=True, slots=True)
class Published:
    """A published score.

    Attributes:
        benchmark: as it is named here.
        languages: the score is the mean over exactly these; none where it is one over a benchmark's tasks.
        measure: what was measured, over which tasks.
        model: its name.
        parameters: how many it has, as in 118M.
        score: in percent.
        source: where it is from.
    """

    benchmark: str
    languages: tuple[str, ...]
    measure: str
    model: str
    parameters: str
    score: float
    source: str


def published_scores(benchmark: str) -> list[Published]:
    """What is known of a benchmark, the best first."""
    path = files("lit_retrofit.evaluation") / "data" / "published.tsv"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines, delimiter="\t") if row["benchmark"] == benchmark]
    return sorted(map(_published, rows), key=lambda one: -one.score)


def _published(row: dict[str, str]) -> Published:
    languages, score = tuple(row["languages"].split()), float(row["score"])
    return Published(**{**row, "languages": languages, "score": score})  # type: ignore[arg-type]


def show_published(benchmark: str, results: Results, console: Console) -> None:
    """Prints published scores of a benchmark with the measured one among them; nothing where none is known.

    The measured one is the mean nDCG@10 over the languages that the published ones speak of. Where not all of
    them are measured, or candidates were reranked, a line says so instead.

    Args:
        benchmark: its name.
        results: the measured scores.
        console: where to print.
    """
    known = [one for one in published_scores(benchmark) if one.languages]
    if known and results.settings.get("candidates"):
        _say(f"published scores of {benchmark} are not shown: they are of searching the corpus", console)
        return
    for languages in dict.fromkeys(one.languages for one in known):
        alike = [one for one in known if one.languages == languages]
        scores = _scores(results, languages)
        missing = [language for language in languages if language not in scores]
        if missing:
            line = f"published scores of {benchmark} are not shown: {alike[0].measure}; not measured here: "
            _say(line + _some(missing), console)
        else:
            _show_among(alike, results.model, math.fsum(scores.values()) / len(scores), console)


def _scores(results: Results, languages: Sequence[str]) -> dict[str | None, float]:
    """Monolingual nDCG@10 in percent of those of the languages that are measured."""
    return {
        task.query_language: 100 * task.scores["nDCG@10"]
        for task in results.tasks
        if task.kind == "monolingual" and task.query_language in languages
    }


def _some(languages: Sequence[str]) -> str:
    more = len(languages) - _NAMED
    return ", ".join(languages[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _say(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_ranked(benchmark: str, model: str, score: float, console: Console) -> None:
    """Prints a score among the published ones of its benchmark.

    Args:
        benchmark: its name.
        model: the measured one.
        score: in percent, measured over the same tasks.
        console: where to print.
    """
    known = published_scores(benchmark)
    if known:
        _show_among(known, model, score, console)


def _show_among(known: Sequence[Published], model: str, score: float, console: Console) -> None:
    title = Text(f"published, {known[0].benchmark}")
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, justify in (("model", "left"), ("size", "right"), ("score", "right"), ("of", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    rows = [(one.score, one.model, one.parameters, f"{one.measure}; {one.source}") for one in known]
    for value, name, size, source in sorted(
        [*rows, (score, model, "", "measured here")], key=lambda r: -r[0]
    ):
        mine = source == "measured here"
        table.add_row(Text(name), size, f"{value:.2f}", Text(source), style="bold" if mine else None)
    console.print(table)
