"""The folder that ``evaluate`` writes and the report reads.

``metrics.json`` (means and tasks), ``queries.jsonl`` (each query's nDCG@10 and ten best documents) and
``run/X-Y.trec`` (the rankings, in TREC's six columns).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.languages import group_means
from lit_retrofit.evaluation.measures import Scores, TaskResult, means_by_kind, trec_lines
from lit_retrofit.evaluation.several import refuse_several

FORMAT = 1


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One language task's line of ``metrics.json``.

    Attributes:
        kind: ``monolingual``, ``cross_lingual`` or ``all``; ``clustering`` for texts with labels.
        query_language: None for ``all``.
        corpus_language: None for ``all``.
        queries: measured queries; texts, where they are clustered.
        documents: size of the restricted corpus; labels, where texts are clustered.
        left_out_queries: queries of the language without a relevant document in the restricted corpus.
        scores: measure → mean over the queries, 0 … 1.
        bm25: the same for BM25, where it was asked for.
        variants: name of a smaller index → its mean nDCG@10, where asked for.
    """

    kind: str
    query_language: str | None
    corpus_language: str | None
    queries: int
    documents: int
    left_out_queries: int
    scores: Scores
    bm25: Scores | None = None
    variants: Scores | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """One evaluation.

    Attributes:
        started: Unix time, seconds.
        seconds: wall time.
        model: as the user named it.
        data: as the user named it.
        settings: the command's other options.
        tasks: every language task.
        cost: bytes of the index in each of its forms, and latency where it was measured; None in results of
            before these were written.
    """

    started: float
    seconds: float
    model: str
    data: str
    settings: dict[str, Any]
    tasks: tuple[TaskScores, ...]
    cost: dict[str, Any] | None = None

    @property
    def means(self) -> dict[str, Scores]:
        """Kind of task → measure → unweighted mean over its tasks."""
        return means_by_kind((task.kind, task.scores) for task in self.tasks)

    @property
    def bm25_means(self) -> dict[str, Scores]:
        """The same for BM25; empty where it was not asked for."""
        return means_by_kind((task.kind, task.bm25) for task in self.tasks if task.bm25 is not None)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """One line of ``queries.jsonl``: a query in one task, its nDCG@10 and its best ten documents."""

    kind: str
    query_language: str | None
    corpus_language: str | None
    query_id: str
    ndcg: float
    top_ids: tuple[str, ...]


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuses an output folder that exists, unless it may be overwritten.

    Raises:
        UserError: it exists and ``overwrite`` is False, or it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --output takes the name of a folder")
    if folder.exists() and not overwrite:
        raise UserError(
            f"{folder} already exists; choose another --output, or replace its results with --overwrite"
        )


def write_results(folder: Path, results: Results, tasks: Iterable[TaskResult]) -> None:
    """Writes an evaluation; ``metrics.json`` comes last, so a folder that has it is complete.

    Args:
        folder: created where needed. Earlier results in it are replaced, other files stay.
        results: the scores.
        tasks: the model's task results, for the per-query files.
    """
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    for earlier in (folder / "metrics.json", *run.glob("*.trec")):
        earlier.unlink(missing_ok=True)
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as lines:
        for result in tasks:
            for query in query_results(result):
                lines.write(json.dumps(_query_line(query), ensure_ascii=False) + "\n")
            task = result.task
            path = run_path(folder, task.kind, task.query_language, task.corpus_language)
            with path.open("w", encoding="utf-8") as file:
                file.writelines(trec_lines(result.ranking, results.model))
    content = {
        "format": FORMAT,
        **asdict(results),
        "means": results.means,
        "bm25_means": results.bm25_means,
        "groups": group_means(results.tasks),
    }
    content["tasks"] = [
        {k: v for k, v in task.items() if k not in ("bm25", "variants") or v} for task in content["tasks"]
    ]
    for optional in ("cost", "bm25_means", "groups"):
        if not content[optional]:
            del content[optional]
    unfinished = folder / "metrics.json.part"
    unfinished.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / "metrics.json")


def query_results(result: TaskResult) -> Iterator[QueryResult]:
    """What ``queries.jsonl`` says of a task."""
    for query_id, found in result.ranking:
        yield QueryResult(
            kind=result.task.kind,
            query_language=result.task.query_language,
            corpus_language=result.task.corpus_language,
            query_id=query_id,
            ndcg=result.ndcg_per_query[query_id],
            top_ids=tuple(id for id, _ in found[:10]),
        )


def _query_line(query: QueryResult) -> dict[str, Any]:
    languages = {"query_language": query.query_language, "corpus_language": query.corpus_language}
    return {
        "kind": query.kind,
        **languages,
        "query_id": query.query_id,
        "nDCG@10": query.ndcg,
        "top_ids": list(query.top_ids),
    }


def run_path(folder: Path, kind: str, query_language: str | None, corpus_language: str | None) -> Path:
    """Where an evaluation keeps a task's rankings."""
    name = "all" if kind == "all" else f"{quote(str(query_language), '')}-{quote(str(corpus_language), '')}"
    return folder / "run" / f"{name}.trec"


def read_results(folder: Path) -> Results:
    """Reads what ``write_results`` wrote.

    Raises:
        UserError: ``metrics.json`` is missing, no valid JSON, of another format or lacks a field; or the
            folder has those of several benchmarks in it.
    """
    refuse_several(folder)
    path = folder / "metrics.json"
    if not path.is_file() and (folder / "queries.jsonl").is_file():
        raise UserError(
            f"{path} is missing; lit-retrofit evaluate was interrupted: run it again with --overwrite"
        )
    if not path.is_file():
        raise UserError(
            f"{path} is missing; lit-retrofit evaluate MODEL --data DATA --output {folder} writes it"
        )
    content = _json_object(path, path.read_text(encoding="utf-8"), first_line=1)
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path}: field 'format' is {content.get('format')!r}, this version reads {FORMAT}; evaluate "
            "again with --overwrite"
        )
    tasks = _field(path, content, "tasks", list)
    return Results(
        **{name: _field(path, content, name, kind) for name, kind in _RESULT_FIELDS.items()},
        tasks=tuple(_task_scores(path, number, task) for number, task in enumerate(tasks)),
        cost=_field(path, content, "cost", dict) if "cost" in content else None,
    )


def read_queries(folder: Path) -> tuple[QueryResult, ...]:
    """Reads ``queries.jsonl``.

    Raises:
        UserError: it is missing, or a line is no valid JSON or lacks a field.
    """
    path = folder / "queries.jsonl"
    if not path.is_file():
        raise UserError(
            f"{path} is missing; lit-retrofit evaluate MODEL --data DATA --output {folder} writes it"
        )
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            content = _json_object(path, line, first_line=number)
            where = f"{path}:{number}"
            ndcg = _field(where, content, "nDCG@10", _NUMBER)
            top_ids = tuple(_field(where, content, "top_ids", list))
            values = {name: _field(where, content, name, kind) for name, kind in _QUERY_FIELDS.items()}
            found.append(QueryResult(**values, ndcg=ndcg, top_ids=top_ids))
    return tuple(found)


_NUMBER = (int, float)
_OPTIONAL_TEXT = (str, type(None))
_QUERY_FIELDS = {
    "kind": str,
    "query_language": _OPTIONAL_TEXT,
    "corpus_language": _OPTIONAL_TEXT,
    "query_id": str,
}
_RESULT_FIELDS = {"started": _NUMBER, "seconds": _NUMBER, "model": str, "data": str, "settings": dict}
_TASK_FIELDS = {
    "kind": str,
    "query_language": _OPTIONAL_TEXT,
    "corpus_language": _OPTIONAL_TEXT,
    "queries": int,
    "documents": int,
    "left_out_queries": int,
    "scores": dict,
}


def _task_scores(path: Path, number: int, task: Any) -> TaskScores:
    where = f"{path}: tasks[{number}]"
    if not isinstance(task, dict):
        raise UserError(f"{where} is no object; evaluate again with --overwrite")
    optional = {name: _field(where, task, name, dict) for name in ("bm25", "variants") if name in task}
    return TaskScores(
        **{name: _field(where, task, name, kind) for name, kind in _TASK_FIELDS.items()}, **optional
    )


def _json_object(path: Path, text: str, *, first_line: int) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(
            f"{path}:{line}: not valid JSON ({error.msg}), cut short or damaged; evaluate again "
            "with --overwrite"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}:{first_line}: not a JSON object; evaluate again with --overwrite")
    return content


def _field(where: Path | str, content: dict[str, Any], name: str, kind: Any) -> Any:
    if name not in content or not isinstance(content[name], kind):
        problem = "is missing" if name not in content else f"is {content[name]!r}"
        raise UserError(f"{where}: field '{name}' {problem}; evaluate again with --overwrite")
    return content[name]
