"""Splits an evaluation set into language tasks: one query language against one corpus language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError

TaskKind = Literal["monolingual", "cross_lingual", "all"]
DEFAULT_PIVOT = "en"  # may be absent from a set, unlike a pivot that the user names
Positions = Mapping["str | None", Sequence[int]]


@dataclass(frozen=True, slots=True)
class LanguageTask:
    """Queries of one language against the documents of one language.

    Attributes:
        kind: ``all`` is the undivided set, where languages are not known.
        query_language: None for ``all``.
        corpus_language: None for ``all``.
        query_indices: positions in ``RetrievalSet.queries``; each has a relevant document in the task.
        document_indices: positions in ``RetrievalSet.corpus``: the restricted corpus, ascending.
        left_out_queries: queries of this language without a relevant document in the restricted corpus.
    """

    kind: TaskKind
    query_language: str | None
    corpus_language: str | None
    query_indices: tuple[int, ...]
    document_indices: tuple[int, ...]
    left_out_queries: int = 0


@dataclass(frozen=True, slots=True)
class TaskSplit:
    """The tasks of a set, and what is in none of them.

    Attributes:
        tasks: monolingual ones first, then X → pivot, then pivot → X, each by language code.
        notes: one sentence for each group of queries, documents or tasks that was left out.
    """

    tasks: tuple[LanguageTask, ...]
    notes: tuple[str, ...]


def split_tasks(retrieval_set: RetrievalSet, *, pivot: str | None = DEFAULT_PIVOT) -> TaskSplit:
    """Splits an evaluation set by the languages of its queries and documents.

    Monolingual: queries in X, the corpus restricted to X. Cross-lingual: X → pivot and pivot → X for
    every X other than the pivot. Only judgements inside the restricted corpus count. A set in which no
    query, or no document, names its language becomes one task ``all``.

    Args:
        retrieval_set: queries, corpus and judgements.
        pivot: the language that the cross-lingual tasks lead to and start from; None makes a task of
            every ordered pair of different languages.

    Raises:
        UserError: no query has a relevant document in any task.
    """
    queries, documents = _positions(retrieval_set.queries), _positions(retrieval_set.corpus)
    if set(queries) == {None} or set(documents) == {None}:
        queries = {None: range(len(retrieval_set.queries))}
        documents = {None: range(len(retrieval_set.corpus))}
    answers = _answer_languages(retrieval_set, documents)
    known = {language for language in (*queries, *documents) if language}
    if known and pivot not in {None, DEFAULT_PIVOT, *known}:
        raise UserError(
            f"{retrieval_set.name}: no text in the pivot language '{pivot}'; there are {sorted(known)}"
        )
    tasks, notes = [], _language_notes(queries, documents, pivot)
    for kind, source, target in _language_pairs(queries, documents, pivot):
        answerable = tuple(i for i in queries[source] if target in answers[i])
        if answerable:
            left_out = len(queries[source]) - len(answerable)
            corpus = tuple(documents[target])
            tasks.append(LanguageTask(kind, source, target, answerable, corpus, left_out))
        else:
            notes.append(
                f"{source} → {target} is left out: none of its {len(queries[source])} queries has a relevant "
                f"document among the {len(documents[target])} of that language"
            )
    if not tasks:
        raise UserError(
            f"{retrieval_set.name}: no query has a relevant document in a corpus of its own or the pivot's "
            f"language (queries in {_names(queries)}, documents in {_names(documents)}, pivot {pivot}); "
            "check the language fields, or name another pivot (null makes a task of every pair of languages)"
        )
    unused = len(retrieval_set.queries) - len({i for task in tasks for i in task.query_indices})
    if unused:
        notes.append(f"{unused} of {len(retrieval_set.queries)} queries are in no task")
    return TaskSplit(tuple(tasks), tuple(notes))


def _positions(items: Sequence[Query | Document]) -> Positions:
    by_language: dict[str | None, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        by_language[item.language].append(position)
    return dict(by_language)


def _answer_languages(retrieval_set: RetrievalSet, documents: Positions) -> list[set[str | None]]:
    """For each query, the languages (keys of ``documents``) in which it has a relevant document."""
    language = {
        retrieval_set.corpus[position].id: name
        for name, positions in documents.items()
        for position in positions
    }
    return [
        {
            language[id]
            for id, grade in retrieval_set.qrels.get(query.id, {}).items()
            if grade > 0 and id in language
        }
        for query in retrieval_set.queries
    ]


def _language_pairs(
    queries: Positions, documents: Positions, pivot: str | None
) -> Iterator[tuple[TaskKind, str | None, str | None]]:
    sources, targets = _languages(queries), _languages(documents)
    if not sources:
        yield "all", None, None
    yield from (("monolingual", language, language) for language in sources if language in targets)
    if pivot is None:
        yield from (("cross_lingual", x, y) for x in sources for y in targets if x != y)
        return
    if pivot in targets:
        yield from (("cross_lingual", x, pivot) for x in sources if x != pivot)
    if pivot in sources:
        yield from (("cross_lingual", pivot, y) for y in targets if y != pivot)


def _language_notes(queries: Positions, documents: Positions, pivot: str | None) -> list[str]:
    sources, targets = _languages(queries), _languages(documents)
    notes: list[str] = []
    if not sources:
        return notes
    for things, positions in (("queries", queries), ("documents", documents)):
        if None in positions:
            notes.append(f"{len(positions[None])} {things} name no language and are in no task")
    for language in sorted({*sources, *targets}):
        if language not in targets:
            notes.append(f"{language} has {len(queries[language])} queries but no documents: not monolingual")
        elif language not in sources:
            notes.append(
                f"{language} has {len(documents[language])} documents but no queries: not monolingual"
            )
    if pivot is not None and len({*sources, *targets}) > 1:
        for things, languages in (("queries", sources), ("documents", targets)):
            if pivot not in languages:
                direction = f"{pivot} → X" if things == "queries" else f"X → {pivot}"
                notes.append(f"no {things} in the pivot language {pivot}: no tasks {direction}")
    return notes


def _languages(positions: Positions) -> list[str]:
    return sorted(language for language in positions if language is not None)


def _names(positions: Positions) -> str:
    return ", ".join(_languages(positions)) or "no named language"


def task_name(retrieval_set: RetrievalSet, task: LanguageTask) -> str:
    """For notes: the set, and the task's languages where there are any."""
    if task.kind == "all":
        return retrieval_set.name
    return f"{retrieval_set.name}, {task.query_language} → {task.corpus_language}"
