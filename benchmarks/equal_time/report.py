"""The table: every way's nDCG@10, and how far ours is ahead of it."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.ablations.scoring import Queries, Score, compare
from benchmarks.kernels.report import table

OURS, BASE, BM25 = "lit-retrofit", "untouched base", "BM25"
Columns = dict[str, Queries]


@dataclass
class Row:
    """One way, with each seed.

    Attributes:
        scores: of each seed, by column.
        steps: of training.
        seconds: of mining and training.
    """

    scores: list[Columns] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, scores: Columns, steps: int, seconds: float) -> None:
        """Another seed."""
        self.scores.append(scores)
        self.steps.append(steps)
        self.seconds.append(seconds)


def with_all_tasks(columns: Columns) -> Columns:
    """Before the columns of each test set's kinds of task, one of all its tasks."""
    found: Columns = {}
    for column, tasks in columns.items():
        found.setdefault(f"{column.split()[0]} all tasks", {}).update(tasks)
    return found | columns


def summary(rows: dict[str, Row]) -> dict[str, Any]:
    """Of each way: steps, seconds, and the scores by column, with our lead as the difference."""
    return {
        name: {
            "steps": row.steps,
            "seconds": row.seconds,
            "scores": {column: asdict(_score(rows, name, column)) for column in row.scores[0]},
        }
        for name, row in rows.items()
        if row.scores
    }


def _score(rows: dict[str, Row], name: str, column: str) -> Score:
    """A way's means; its difference is ours less its own."""
    theirs, mine = ([seed[column] for seed in rows[n].scores] for n in (name, OURS))
    own = compare(theirs, None)
    if name == OURS:
        return own
    lead = compare(mine, theirs)
    return Score(own.mean, own.per_seed, lead.difference, lead.low, lead.high)


def markdown(facts: dict[str, Any], found: dict[str, Any]) -> str:
    """The whole page."""
    machine, columns = facts["machine"], list(found[OURS]["scores"])
    head = (
        f"`{facts['command']}` on {machine['processor']}, {machine['threads']} threads; torch "
        f"{machine['torch']}, sentence-transformers {machine['sentence-transformers']}; {facts['data']}, "
        f"seeds {', '.join(map(str, facts['seeds']))}."
    )
    explained = (
        "nDCG@10, the mean over tasks and seeds. In brackets how far lit-retrofit is ahead, with the 95 % "
        "bootstrap interval of that over queries. Time is that of mining and training."
    )
    rows = []
    for name, own in found.items():
        steps = f"{statistics.mean(own['steps']):.0f}" if own["steps"] else ""
        seconds = f"{statistics.mean(own['seconds']):.0f} s" if own["seconds"] else ""
        rows.append([_title(name), steps, seconds, *(_cell(own["scores"][column]) for column in columns)])
    return "\n\n".join([
        f"# Retrieval quality after {facts['seconds']:g} seconds", head, explained,
        table(["", "steps", "time", *columns], rows),
    ]) + "\n"  # fmt: skip


def _title(name: str) -> str:
    return name if name in (OURS, BASE, BM25) else f"sentence-transformers, {name}"


def _cell(score: dict[str, Any]) -> str:
    if score["difference"] is None:
        return f"**{score['mean']:.4f}**"
    return f"{score['mean']:.4f} ({score['difference']:+.4f}; {score['low']:+.4f} … {score['high']:+.4f})"
