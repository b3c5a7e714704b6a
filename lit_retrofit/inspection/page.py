"""An inspection as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from lit_retrofit.inspection.summary import GroupSummary, Inspection
from lit_retrofit.inspection.terminal import notes
from lit_retrofit.inspection.wording import facts, few, number, percent
from lit_retrofit.report.histograms import Bars, Histogram, bars, growing_histogram, histogram
from lit_retrofit.report.html import make_environment

_PACKAGE = "lit_retrofit.inspection"


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure."""

    name: str
    value: str
    about: str


@dataclass(frozen=True, slots=True)
class Section:
    """What the page shows of a group.

    Attributes:
        group: its figures.
        facts: counts, by what they are of.
        languages: bars of records; None where there is one language.
        tasks: bars of kinds of query; None where there is one.
        lengths: of queries, then of documents.
        similarities: None where nothing was scored.
    """

    group: GroupSummary
    facts: dict[str, str]
    languages: Bars | None
    tasks: Bars | None
    lengths: tuple[Histogram, ...]
    similarities: Histogram | None


def render(found: Inspection) -> str:
    """The page. All texts are escaped; nothing is loaded from anywhere."""
    environment = make_environment(_PACKAGE)
    environment.filters.update(number=number, percent=percent, few=few)
    return environment.get_template("inspection.html.jinja").render(
        title=f"What is in {found.data}",
        found=found,
        tiles=_tiles(found),
        notes=notes(found),
        sections=[_section(group, found) for group in found.groups],
        version=version("lit-retrofit"),
    )


def _tiles(found: Inspection) -> list[Tile]:
    groups, records = found.groups, found.records
    languages = {row.language for group in groups for row in group.languages}
    tasks = {task for group in groups for task in group.tasks}
    repeated = sum(group.repeated_pairs for group in groups)
    tiles = [
        Tile("Records", f"{records:,}", "all" if found.complete else "of the rows that were read"),
        Tile("Sources", f"{len(groups):,}", f"{len(tasks):,} kinds of query"),
        Tile("Languages", f"{len(languages):,}", "of the queries, as the records name them"),
        Tile("Repeated", percent(repeated / records), "records with an earlier one's query and positive"),
    ]
    cut = [(found.texts, found.over) for group in groups for found in _documents(group)]
    if found.model is not None and cut:
        share = sum(texts * over for texts, over in cut if over is not None) / sum(t for t, _ in cut)
        tiles.append(Tile("Cut documents", percent(share), "longer than the limit"))
    scored = [group.scores for group in groups if group.scores and group.scores.negatives]
    if scored or any(group.suspects for group in groups):
        suspects = sum(sum(group.suspects.values()) for group in groups)
        looked = sum(one.negatives.count for one in scored if one.negatives)
        about = f"of {looked:,} hard negatives that were scored" if looked else "equal to the positive"
        tiles.append(Tile("Likely false negatives", f"{suspects:,}", about))
    return tiles


def _documents(group: GroupSummary) -> list:
    return [lengths for role, lengths in group.lengths.items() if role != "query"]


def _section(group: GroupSummary, found: Inspection) -> Section:
    languages = {row.language: row.records for row in group.languages}
    scores = group.scores
    return Section(
        group=group,
        facts=facts(group),
        languages=bars("Records per language of the query", languages) if len(languages) > 1 else None,
        tasks=bars("Records per kind of query", group.tasks) if len(group.tasks) > 1 else None,
        lengths=tuple(
            growing_histogram(
                f"Lengths in {found.unit}: {role} texts. The table below has the numbers.",
                lengths.edges, {f"{role} texts": lengths.counts}, lengths.limit,
            )
            for role, lengths in group.lengths.items()
        ),
        similarities=None
        if scores is None
        else histogram(
            "Similarities of queries to positives and hard negatives. The table below has the numbers.",
            scores.edges,
            {"positives": scores.positive_counts, "hard negatives": scores.negative_counts},
        ),
    )  # fmt: skip
