"""An ablation's table, figures and plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ablations.plan import Ablation
from benchmarks.ablations.running import Finished
from benchmarks.ablations.scoring import Score, compare, read_columns
from benchmarks.plotting import can_plot, save, subplots

BASE = "untouched base"
Runs = Mapping[str, Sequence[Finished]]


def score(ablation: Ablation, runs: Runs) -> dict[str, dict[str, Score]]:
    """Arm → column → score, of the seeds that went well."""
    read = {
        name: [read_columns(run.scores, ablation.unseen) for run in seeds if run.problem is None]
        for name, seeds in runs.items()
    }
    found: dict[str, dict[str, Score]] = {}
    for name, seeds in read.items():
        against = read.get(ablation.baseline) if name != ablation.baseline else None
        found[name] = {
            column: compare(
                [seed[column] for seed in seeds], [s[column] for s in against] if against else None
            )
            for column in (seeds[0] if seeds else ())
        }
    return found


def write(output: Path, ablation: Ablation, runs: Runs, facts: dict[str, Any], command: str) -> Path:
    """Writes NAME.json, NAME.md and NAME.svg; tells where the table is."""
    scores = score(ablation, runs)
    output.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "question": ablation.question, "command": command, **facts, "arms": {}}
    for name, seeds in runs.items():
        own = {column: asdict(found) | {"spread": found.spread} for column, found in scores[name].items()}
        told = [{"steps": r.steps, "seconds": r.seconds, "problem": r.problem} for r in seeds]
        content["arms"][name] = {"runs": told, "scores": own}
    stem = output / ablation.path.stem
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    plot = stem.with_suffix(".svg")
    drawn = draw(plot, ablation, scores)
    table = stem.with_suffix(".md")
    table.write_text(markdown(ablation, runs, scores, facts, command, plot.name if drawn else None), "utf-8")
    return table


def markdown(
    ablation: Ablation,
    runs: Runs,
    scores: Mapping[str, Mapping[str, Score]],
    facts: Mapping[str, Any],
    command: str,
    plot: str | None,
) -> str:
    """The page of a question."""
    columns = list(dict.fromkeys(column for own in scores.values() for column in own))
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    lines = [
        f"# {ablation.question}", "", f"The paper: {ablation.paper}", "", f"`{command}`", "",
        f"{told}. nDCG@10: mean over seeds ± standard deviation over seeds; in brackets the difference to "
        f"*{ablation.baseline}* and its 95 % bootstrap interval over queries.", "",
        "| arm | steps | training, s | " + " | ".join(columns) + " |",
        "|---|---:|---:|" + "---|" * len(columns),
    ]  # fmt: skip
    for name, own in scores.items():
        done = [run for run in runs[name] if run.problem is None]
        if not done:
            continue
        steps = f"{statistics.mean(run.steps for run in done):.0f}" if name != BASE else "–"
        seconds = f"{statistics.mean(run.seconds for run in done):.0f}" if name != BASE else "–"
        shown = f"*{name}*" if name == ablation.baseline else name
        lines.append(
            f"| {shown} | {steps} | {seconds} | " + " | ".join(_cell(own[c]) for c in columns) + " |"
        )
    failed = [(n, i, r.problem) for n, seeds in runs.items() for i, r in enumerate(seeds) if r.problem]
    lines += ["", *(f"- {name}, run {number}: failed: {problem}" for name, number, problem in failed)]
    lines += ["", f"![{ablation.question}]({plot})"] if plot else []
    return "\n".join(lines).rstrip() + "\n"


def _cell(found: Score) -> str:
    spread = "" if found.spread is None else f" ± {found.spread:.4f}"
    text = f"{found.mean:.4f}{spread}"
    if found.difference is None:
        return text
    return f"{text} ({found.difference:+.4f}; {found.low:+.4f} … {found.high:+.4f})"


def draw(path: Path, ablation: Ablation, scores: Mapping[str, Mapping[str, Score]]) -> bool:
    """Differences to the baseline with their intervals, a panel per column; False without matplotlib."""
    if not can_plot():
        return False
    names = [name for name, own in scores.items() if own and name != ablation.baseline]
    columns = list(dict.fromkeys(column for name in names for column in scores[name]))
    if not columns or ablation.baseline not in scores or not scores[ablation.baseline]:
        return False
    size = (3 * len(columns) + 2, 0.4 * len(names) + 1.6)
    figure, axes = subplots(path, 1, len(columns), sharey=True, figsize=size)
    for axis, column in zip(axes[0], columns, strict=True):
        for row, name in enumerate(names):
            found = scores[name][column]
            axis.plot([found.low, found.high], [row, row], color="tab:blue", linewidth=1.5)
            axis.plot([found.difference], [row], "o", color="tab:blue")
        axis.axvline(0, color="grey", linewidth=1)
        axis.set(title=column, xlabel=f"nDCG@10 − that of '{ablation.baseline}'")
        axis.title.set_fontsize("small")
        axis.xaxis.label.set_fontsize("x-small")
        axis.tick_params(labelsize="x-small")
        axis.grid(True, axis="x", alpha=0.25)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    save(figure, path)
    return True
