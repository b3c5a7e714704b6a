"""What a language code means: its family and its script, and means of scores over them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol

from lit_retrofit.evaluation.measures import Scores, means_by_kind

UNKNOWN = "unknown"
_CODE = re.compile(
    r"(?P<language>[a-z]{2,3})([-_](?P<script>[A-Z][a-z]{3}))?([-_](?P<region>[A-Z]{2}|\d{3}))?"
)
_ANY_CASE = re.compile(_CODE.pattern, re.IGNORECASE)
_TRADITIONAL = {"TW", "HK", "MO"}
# The usual form of a language has a code of its own, which benchmarks write and most data sets do not.
_USUAL = {
    "als": "sq", "arb": "ar", "azj": "az", "cmn": "zh", "ekk": "et", "fil": "tl", "gaz": "om", "khk": "mn",
    "lvs": "lv", "nob": "no", "nb": "no", "ory": "or", "pbt": "ps", "pes": "fa", "plt": "mg",
    "uzn": "uz", "ydd": "yi", "zsm": "ms",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Language:
    """A language in a script.

    Attributes:
        name: in English.
        family: the largest one that it belongs to, such as Indo-European.
        script: ISO 15924, such as Latn.
    """

    name: str
    family: str
    script: str


class LanguageScores(Protocol):
    """What `group_means` reads of a task's scores."""

    @property
    def kind(self) -> str:
        """Of the task."""

    @property
    def query_language(self) -> str | None:
        """Code of the queries' language."""

    @property
    def scores(self) -> Scores:
        """By measure."""


class TaskLanguages(Protocol):
    """What `never_trained_on` reads of a task."""

    @property
    def kind(self) -> str:
        """Of the task."""

    @property
    def query_language(self) -> str | None:
        """Code of the queries' language."""

    @property
    def corpus_language(self) -> str | None:
        """Code of the documents' language."""


def find_language(code: str) -> Language:
    """Looks a code up; what is not known of it is "unknown".

    Args:
        code: ``de``, ``deu``, ``zh-CN``, ``deu_Latn`` and the like. A script in it wins over the usual one.
    """
    match = _CODE.fullmatch(code)
    row = _table().get(match["language"]) if match else None
    if match is None or row is None:
        return Language(code, UNKNOWN, match["script"] if match and match["script"] else UNKNOWN)
    script = match["script"] or row.script
    if row.script == "Hans" and match["region"] in _TRADITIONAL:
        script = "Hant"
    return Language(row.name, row.family, script)


def one_language(code: str) -> str:
    """The same for all codes of a language: ``zh``, ``zh-CN`` and ``cmn_Hant``; ``de`` and ``deu_Latn``.

    Script and region do not count: who has learnt a language in one script is not new to it in another.
    A code that is not known is a language of its own.
    """
    written = code.strip()
    match = _ANY_CASE.fullmatch(written)
    short = match["language"].lower() if match else written.lower()
    row = _table().get(_USUAL.get(short, short))
    return row.name if row else short


def never_trained_on(task: TaskLanguages, trained: frozenset[str] | None, pivot: str | None) -> bool:
    """Whether a task tests a language that was never trained on (zero-shot).

    Args:
        task: the pivot of a cross-lingual one does not count.
        trained: codes of the languages trained on, in any form; None where they are not known.
        pivot: the language that cross-lingual tasks lead to and start from.
    """
    if trained is None or task.kind == "all":
        return False
    tested = {task.query_language, task.corpus_language}
    if task.kind == "cross_lingual":
        tested -= {pivot}
    return not {one_language(str(code)) for code in tested} <= {one_language(code) for code in trained}


@cache
def _table() -> dict[str, Language]:
    path = files("lit_retrofit.evaluation") / "data" / "languages.tsv"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found: dict[str, Language] = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        language = Language(row["name"], row["family"], row["script"])
        found |= {code: language for code in (row["code"], row["short"]) if code}
    return found


def group_means(tasks: Iterable[LanguageScores]) -> dict[str, dict[str, dict[str, Scores]]]:
    """Means of the monolingual tasks' scores, and of the clustered languages', over families and scripts.

    Returns:
        Kind of task → family or script → group → measure → mean over the tasks in it, with their number as
        ``tasks``.
    """
    found: dict[str, dict[str, dict[str, Scores]]] = {}
    of_kind: dict[str, list[LanguageScores]] = {}
    for task in tasks:
        if task.kind in ("monolingual", "clustering") and task.query_language:
            of_kind.setdefault(task.kind, []).append(task)
    for kind, alike in of_kind.items():
        languages = [find_language(str(task.query_language)) for task in alike]
        for by, names in (
            ("family", [language.family for language in languages]),
            ("script", [language.script for language in languages]),
        ):
            pairs = list(zip(names, (task.scores for task in alike), strict=True))
            means = means_by_kind(sorted(pairs, key=lambda pair: pair[0]))
            found.setdefault(kind, {})[by] = {
                name: {**scores, "tasks": names.count(name)} for name, scores in means.items()
            }
    return found
