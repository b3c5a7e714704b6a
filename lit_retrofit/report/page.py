"""The HTML page: one file that needs no network and no script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lit_retrofit.quickstart.embedded_data import PREFIX
from lit_retrofit.report.changed_queries import EXCERPT, Counts, ShownQuery
from lit_retrofit.report.charts import dumbbells, loss_curve
from lit_retrofit.report.comparison import Change, Comparison
from lit_retrofit.report.html import make_environment
from lit_retrofit.report.merging import Merging
from lit_retrofit.report.numbers import plain
from lit_retrofit.report.sources import Settings, TrainingRun
from lit_retrofit.report.summary import Summary

# Evaluation settings that may differ without making the comparison unfair.
_HARMLESS = ("split", "pivot", "device")


@dataclass(frozen=True, slots=True)
class Page:
    """What the page tells.

    Attributes:
        title: its heading.
        comparison: all scores.
        summary: the headline numbers.
        counts: of the queries with a changed top three; None where no examples were asked for.
        examples: some of these queries.
        training: the run of ``fit``, where given.
        mining: the summary of ``mine``, where given.
        merging: the record of ``merge``, where the model is one.
        output: the folder the page is written to; its ``export`` is where the model is looked for.
    """

    title: str
    comparison: Comparison
    summary: Summary
    counts: Counts | None
    examples: Sequence[ShownQuery]
    training: TrainingRun | None
    mining: dict[str, Any] | None
    merging: Merging | None
    output: Path


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number; ``about`` says of what, or why there is none."""

    name: str
    change: Change | None
    about: str


def render(page: Page) -> str:
    """The page as HTML. All texts are escaped; nothing is loaded from anywhere."""
    environment = make_environment()
    environment.filters.update(literal=lambda text: json.dumps(text, ensure_ascii=False))
    comparison, training = page.comparison, page.training
    exported = _exported(page)
    return environment.get_template("report.html.jinja").render(
        title=page.title,
        comparison=comparison,
        summary=page.summary,
        tiles=_tiles(page),
        notes=_notes(page),
        charts=dumbbells(comparison.blocks),
        counts=page.counts,
        examples=page.examples,
        excerpt=EXCERPT,
        training=training,
        curve=loss_curve(training.log.loss) if training else None,
        mining=page.mining,
        merging=page.merging,
        stages=_stages(page),
        settings=_settings(page),
        export=exported is not None,
        export_to=str(exported or page.output / "export"),
        exportable=str(training.folder) if training else comparison.after.model,
        embedded=comparison.after.data.startswith(PREFIX),
        version=version("lit-retrofit"),
    )


def _tiles(page: Page) -> list[Tile]:
    comparison, summary = page.comparison, page.summary
    if summary.all is not None:
        return [Tile("All queries", summary.all, "the data name no languages")]
    known = comparison.trained is not None
    untrained = [task.label for task in comparison.tasks if task.zero_shot and task.kind == "monolingual"]
    about = (
        f"never trained on: {', '.join(untrained)}" if untrained else "no language is without training data"
    )
    number = sum(task.kind == "monolingual" and not task.zero_shot for task in comparison.tasks)
    scope = f"mean over {number} {'training ' if known else ''}language{'s' if number != 1 else ''}"
    pivot = comparison.pivot
    across = f"mean of X → {pivot} and {pivot} → X" if pivot else "mean over pairs of languages"
    return [
        Tile("Monolingual", summary.monolingual, scope if summary.monolingual else "not measured"),
        Tile("Cross-lingual", summary.cross_lingual, across if summary.cross_lingual else "not measured"),
        Tile("Zero-shot", summary.zero_shot, about if known else "not known without the training run"),
    ]


def _notes(page: Page) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    old, new = page.comparison.before.settings, page.comparison.after.settings
    differing = [name for name in new if name not in _HARMLESS and old.get(name) != new[name]]
    notes = [
        f"Evaluated with different settings: {name} was {plain(old.get(name))} before and "
        f"{plain(new[name])} after."
        for name in differing
    ]
    if page.training is None:
        notes.append("The training run was not given: means are over all languages, trained on or not.")
    elif unknown := page.training.languages.get("unknown"):
        notes.append(
            f"{unknown:,} training records name no language: a language marked zero-shot may be among them."
            if page.training.trained
            else "The training records name no language: means are over all languages."
        )
    return notes


def _stages(page: Page) -> list[tuple[str, float]]:
    stages = [("Evaluation before", page.comparison.before.seconds)]
    if page.mining:
        stages.append(("Mining", page.mining["seconds"]))
    if page.training:
        stages.append(("Training", page.training.card["seconds"]))
    if page.merging:
        stages.append(("Merging", page.merging.record["seconds"]))
    return [*stages, ("Evaluation after", page.comparison.after.seconds)]


def _settings(page: Page) -> Settings:
    groups = list(page.training.settings) if page.training else []
    if page.mining and isinstance(page.mining.get("rules"), dict):
        groups.append(("mining", list(page.mining["rules"].items())))
    return [*groups, ("evaluation", list(page.comparison.after.settings.items()))]


def _exported(page: Page) -> Path | None:
    """The directory that sentence-transformers can load, where it is already written."""
    for folder in (page.output / "export", Path(page.comparison.after.model)):
        if (folder / "modules.json").is_file():
            return folder
    return None
