"""The HTML page: one file that needs no network and no script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lit_retrofit.quickstart.embedded_data import PREFIX
from lit_retrofit.report.changed_queries import EXCERPT, Counts, ShownQuery
from lit_retrofit.report.charts import dumbbells
from lit_retrofit.report.comparison import Change, Comparison
from lit_retrofit.report.cost import Cost
from lit_retrofit.report.curves import Curve, curve
from lit_retrofit.report.histograms import Histogram, histogram
from lit_retrofit.report.html import make_environment
from lit_retrofit.report.merging import Merging
from lit_retrofit.report.numbers import plain
from lit_retrofit.report.sample import place_of
from lit_retrofit.report.similarities import SimilarityPicture
from lit_retrofit.report.sources import Settings, TrainingRun
from lit_retrofit.report.space import Space
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
        trainings: the runs of ``fit``, where known, by the name of their side.
        mining: the summary of ``mine``, where given.
        merging: the record of ``merge``, where the model is one.
        similarities: of each side; empty where the data was not read.
        space: the picture of the embedding space; None where it was not asked for or cannot be drawn.
        cost: time and price.
        notes: sentences about what is left out.
        output: the folder the page is written to; its ``export`` is where the model is looked for.
    """

    title: str
    comparison: Comparison
    summary: Summary
    counts: Counts | None
    examples: Sequence[ShownQuery]
    trainings: Mapping[str, TrainingRun]
    mining: dict[str, Any] | None
    merging: Merging | None
    similarities: Sequence[SimilarityPicture]
    space: Space | None
    cost: Cost
    notes: Sequence[str]
    output: Path

    @property
    def training(self) -> TrainingRun | None:
        """The run of the second side, whose model the page is about."""
        return self.trainings.get(self.comparison.names[1])


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
        page=page,
        title=page.title,
        comparison=comparison,
        was=comparison.names[0],
        now=comparison.names[1],
        summary=page.summary,
        tiles=_tiles(page),
        notes=_notes(page),
        charts=dumbbells(comparison.blocks),
        counts=page.counts,
        examples=page.examples,
        excerpt=EXCERPT,
        training=training,
        curves=draw_curves(page.trainings),
        mining=page.mining,
        mined=_mined(page.mining),
        merging=page.merging,
        settings=_settings(page),
        export=exported is not None,
        export_to=str(exported or page.output / "export"),
        exportable=place_of(comparison.after.model, training.folder if training else None),
        embedded=comparison.after.data.startswith(PREFIX),
        version=version("lit-retrofit"),
    )


def draw_curves(runs: Mapping[str, TrainingRun]) -> list[Curve]:
    """Loss, validation, temperature, throughput and learning rate by step, of one or several runs."""
    logs = {name: run.log for name, run in runs.items()}
    drawn = [
        curve("Training loss", {name: log.loss for name, log in logs.items()}),
        curve("nDCG@10 on validation", {name: log.validation for name, log in logs.items()}),
        curve("Temperature", {name: log.temperature for name, log in logs.items()}),
        curve("Tokens per second", {n: log.throughput for n, log in logs.items()}, from_zero=True),
        curve("Learning rate", {n: log.learning_rate for n, log in logs.items()}, from_zero=True),
    ]
    return [one for one in drawn if one is not None and not one.flat]


def _mined(mining: dict[str, Any] | None) -> Histogram | None:
    """Similarities of what was mined; None where the summary has none, or they are not as ``mine`` writes."""
    found = (mining or {}).get("histogram")
    if not isinstance(found, dict) or len(found.get("edges", ())) < 2:
        return None
    counts = {name: found.get(name, ()) for name in ("positives", "negatives")}
    if any(len(values) != len(found["edges"]) - 1 for values in counts.values()):
        return None
    title = "Similarities of training queries to their positives and to their mined negatives."
    return histogram(title, found["edges"], counts)


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
    names = page.comparison.names
    differing = [name for name in new if name not in _HARMLESS and old.get(name) != new[name]]
    notes = [
        f"Evaluated with different settings: {name} was {plain(old.get(name))} {names[0]} and "
        f"{plain(new[name])} {names[1]}."
        for name in differing
    ]
    dimensions = page.comparison.dimensions
    if None not in dimensions and dimensions[0] != dimensions[1]:
        notes.append(
            f"Embeddings have {dimensions[0]} numbers {names[0]} and {dimensions[1]} {names[1]}: the larger "
            "index may be what makes the difference."
        )
    if page.comparison.without_interval:
        notes.append(
            f"{page.comparison.without_interval} of {len(page.comparison.tasks)} tasks have no interval: "
            "queries.jsonl has no scores of their queries."
        )
    notes += page.notes
    if page.comparison.trained is None and not page.training:
        notes.append("The training run was not given: means are over all languages, trained on or not.")
    elif page.training and (unknown := page.training.languages.get("unknown")):
        notes.append(
            f"{unknown:,} training records name no language: a language marked zero-shot may be among them."
            if page.training.trained
            else "The training records name no language: means are over all languages."
        )
    return notes


def _settings(page: Page) -> Settings:
    groups = []
    for side, run in page.trainings.items():
        prefix = "" if len(page.trainings) == 1 else f"{side}: "
        groups += [(prefix + name, values) for name, values in run.settings]
        if run.environment:
            groups.append((f"{prefix}environment", run.environment))
    if page.mining and isinstance(page.mining.get("rules"), dict):
        groups.append(("mining", list(page.mining["rules"].items())))
    return [*groups, ("evaluation", list(page.comparison.after.settings.items()))]


def _exported(page: Page) -> Path | None:
    """The directory that sentence-transformers can load, where it is already written."""
    for folder in (page.output / "export", Path(page.comparison.after.model)):
        if (folder / "modules.json").is_file():
            return folder
    return None
