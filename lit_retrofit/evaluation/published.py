"""Published scores beside the user's own; the data file names their sources."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.evaluation.results import Results


@dataclass(frozen=True, slots=True)
class Published:
    """A published score.

    Attributes:
        benchmark: as it is named here.
        measure: what was measured, over which tasks.
        model: its name.
        parameters: how many it has, as in 118M.
        score: in percent.
        source: where it is from.
    """

    benchmark: str
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
    found = [Published(**{**row, "score": float(row["score"])}) for row in rows]  # type: ignore[arg-type]
    return sorted(found, key=lambda one: -one.score)


def show_published(benchmark: str, results: Results, console: Console) -> None:
    """Prints published scores of a benchmark with the measured one among them; nothing where none is known.

    Args:
        benchmark: its name.
        results: the measured scores; their mean nDCG@10 over monolingual tasks is shown.
        console: where to print.
    """
    scores = results.means.get("monolingual")
    if scores is not None:
        show_ranked(benchmark, results.model, 100 * scores["nDCG@10"], console)


def show_ranked(benchmark: str, model: str, score: float, console: Console) -> None:
    """Prints a score among the published ones of its benchmark.

    Args:
        benchmark: its name.
        model: the measured one.
        score: in percent.
        console: where to print.
    """
    known = published_scores(benchmark)
    if not known:
        return
    table = Table(title=Text(f"published, {benchmark}"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, justify in (("model", "left"), ("size", "right"), ("score", "right"), ("of", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    rows = [(one.score, one.model, one.parameters, f"{one.measure}; {one.source}") for one in known]
    for value, name, size, source in sorted(
        [*rows, (score, model, "", "measured here")], key=lambda r: -r[0]
    ):
        mine = source == "measured here"
        table.add_row(Text(name), size, f"{value:.2f}", Text(source), style="bold" if mine else None)
    console.print(table)
