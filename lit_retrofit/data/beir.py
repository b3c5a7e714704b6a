"""Folders in BEIR layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lit_retrofit.data.converters import passage_document
from lit_retrofit.data.corpus import read_by_id
from lit_retrofit.data.fields import Row, optional_text, required_id, required_text
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.data.rows import plain_or_gzip, read_lines
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError

_logger = logging.getLogger(__name__)
_HEADER = ["query-id", "corpus-id", "score"]
_COLUMN_BREAK = re.compile(r"[\t\r\n]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def read_beir(
    folder: Path, *, split: str | None = None, name: str | None = None, skip_invalid: bool = False
) -> RetrievalSet:
    """Reads an evaluation set.

    A title goes before its text. Languages come from ``metadata.language`` or a field ``language``, where
    there are any. Queries that only another split judges are not part of the set.

    Args:
        folder: holds corpus.jsonl (``_id``, ``text``, perhaps ``title``), queries.jsonl (``_id``,
            ``text``) and qrels/ with a ``.tsv`` per split: the header query-id, corpus-id, score, or
            TREC's four columns without one.
        split: which qrels to take; "test", or else the only one there, by default.
        name: of the set in tables; the folder's name by default.
        skip_invalid: leave out blank documents and queries, judgements of unknown ones and queries
            without a positive judgement, and log a warning with their counts, instead of stopping.

    Returns:
        The set, queries and documents in the files' order.

    Raises:
        UserError: a file is missing or invalid.
    """
    skips = Skips(skip_invalid)
    found = load_beir(folder, split=split, default_split="test", name=name, skips=skips)
    for reason, count in skips.counts.items():
        _logger.warning("%s: skipped %d: %s", folder, count, reason)
    return found


def load_beir(
    folder: Path, *, split: str | None, default_split: str, name: str | None, skips: Skips
) -> RetrievalSet:
    """Does the work of ``read_beir``, which see, and leaves the counts of what is skipped in ``skips``."""
    qrels_path = _qrels_path(folder, split, default_split)
    left_out: set[str] = set()
    corpus = read_by_id(plain_or_gzip(folder / "corpus.jsonl"), "_id", beir_document, skips, left_out)
    queries = read_by_id(plain_or_gzip(folder / "queries.jsonl"), "_id", beir_query, skips)
    qrels = _read_qrels(qrels_path, queries.keys(), corpus.keys(), skips)
    kept = _judged_queries(folder / "queries.jsonl", queries, qrels, qrels_path, skips)
    if not kept:
        raise UserError(f"{qrels_path}: no query with a positive judgement is left; check the qrels")
    return RetrievalSet(
        name=name or folder.resolve().name,
        queries=tuple(kept),
        corpus=tuple(document for document, _ in corpus.values()),
        qrels={query.id: qrels[query.id] for query in kept},
        left_out=frozenset(left_out),
    )


def _qrels_path(folder: Path, split: str | None, default_split: str) -> Path:
    for required in ("corpus.jsonl", "queries.jsonl", "qrels"):
        if not plain_or_gzip(folder / required).exists():
            raise UserError(
                f"{folder / required}: missing; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/"
            )
    splits = sorted({path.name.split(".tsv")[0] for path in _qrels_files(folder / "qrels")})
    there = ", ".join(splits) or "no .tsv file"
    chosen = split or (default_split if default_split in splits else "")
    if not chosen and len(splits) == 1:
        chosen = splits[0]
    if chosen not in splits:
        wanted = f"no split '{split}'" if split else f"no split '{default_split}' and not a single other one"
        raise UserError(f"{folder / 'qrels'}: {wanted}; there: {there}; choose one with split")
    return plain_or_gzip(folder / "qrels" / f"{chosen}.tsv")


def beir_document(row: Row) -> Document:
    """A document of corpus.jsonl, or of a table with its columns."""
    document_id = required_id(row, "_id")
    document = passage_document(row, "", "_id")
    return Document(document_id, document.text, _language(row))


def beir_query(row: Row) -> Query:
    """A query of queries.jsonl, or of a table with its columns."""
    return Query(required_id(row, "_id"), required_text(row, "text"), _language(row))


def _language(row: Row) -> str | None:
    metadata = row.get("metadata")
    nested = optional_text(metadata, "language") if isinstance(metadata, dict) else None
    return nested or optional_text(row, "language")


class _Judgement(NamedTuple):
    line: int
    query_id: str
    document_id: str
    grade: int


def _judgements(path: Path) -> Iterator[_Judgement]:
    columns = 0
    for line, text in read_lines(path):
        if not text.strip():
            continue
        # ids may hold spaces where tabs part the columns
        values = text.rstrip("\r\n").split("\t") if "\t" in text else text.split()
        if not columns:
            columns = len(values)
            if columns == 3 and values == _HEADER:
                continue
            _check_first_line(path, line, values)
        if len(values) != columns:
            raise UserError(
                f"{path}:{line}: {len(values)} columns where the first line has {columns}; correct the line"
            )
        query_id, document_id, grade = values[0], values[-2], values[-1].strip()
        if not _INTEGER.fullmatch(grade):
            raise UserError(f"{path}:{line}: field 'score' is '{grade}'; write an integer such as 0 or 1")
        yield _Judgement(line, query_id, document_id, int(grade))


def _check_first_line(path: Path, line: int, values: list[str]) -> None:
    """A first line that is no header begins TREC's form: query, iteration, document, relevance."""
    if len(values) == 4 and _INTEGER.fullmatch(values[-1].strip()):
        return
    raise UserError(
        f"{path}:{line}: no header; begin the file with query-id, corpus-id, score (parted by tabs), "
        "or write TREC's four columns"
    )


def _read_qrels(
    path: Path, queries: Collection[str], documents: Collection[str], skips: Skips
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    unknown: list[tuple[int, str, str]] = []
    empty = True
    for line, query_id, document_id, grade in _judgements(path):
        empty = False
        if query_id not in queries:
            unknown.append((line, f"query '{query_id}'", "queries.jsonl"))
        elif document_id not in documents:
            unknown.append((line, f"document '{document_id}'", "corpus.jsonl"))
        elif qrels.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
            raise UserError(
                f"{path}:{line}: query '{query_id}' and document '{document_id}' are judged {grade} here "
                f"and {qrels[query_id][document_id]} above; keep one line"
            )
    if empty:
        raise UserError(f"{path}: the file has no judgements; give at least one per query")
    _stop_or_skip_unknown(path, unknown, skips)
    return qrels


def _stop_or_skip_unknown(path: Path, unknown: list[tuple[int, str, str]], skips: Skips) -> None:
    if unknown and not skips.skip_invalid:
        line, what, file = unknown[0]
        raise UserError(
            f"{path}:{line}: {what} is not in {file} (judgements of unknown ids: {len(unknown)}); "
            "take the files of one data set, or pass skip_invalid"
        )
    for line, what, file in unknown:
        skips.note(line, f"{path.name}: {what.split()[0]} not in {file}")


def _judged_queries(
    path: Path,
    queries: dict[str, tuple[Query, int]],
    qrels: dict[str, dict[str, int]],
    qrels_path: Path,
    skips: Skips,
) -> list[Query]:
    """The queries with a positive judgement; those that another split judges are left to it."""
    positive = {query_id for query_id, grades in qrels.items() if max(grades.values()) > 0}
    without = [(query, line) for query, line in queries.values() if query.id not in positive]
    if any(query.id not in qrels for query, _ in without):
        elsewhere = _queries_of_other_splits(qrels_path)
        without = [(q, line) for q, line in without if q.id in qrels or q.id not in elsewhere]
    if without and not skips.skip_invalid:
        query, line = without[0]
        raise UserError(
            f"{path}:{line}: query '{query.id}' has no positive judgement in {qrels_path.name} "
            f"(such queries: {len(without)}); judge or remove it, or pass skip_invalid"
        )
    for _, line in without:
        skips.note(line, f"{path.name}: no positive judgement")
    return [query for query, _ in queries.values() if query.id in positive]


def _qrels_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.tsv"), *folder.glob("*.tsv.gz")])


def _queries_of_other_splits(qrels_path: Path) -> set[str]:
    others = (path for path in _qrels_files(qrels_path.parent) if path != qrels_path)
    return {judgement.query_id for path in others for judgement in _judgements(path)}


def write_beir(
    retrieval_set: RetrievalSet, folder: Path, *, split: str = "test", overwrite: bool = False
) -> None:
    """Writes a set in BEIR layout; ``read_beir`` gives it back equal.

    Args:
        retrieval_set: what to write.
        folder: holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv afterwards.
        split: names the qrels' file.
        overwrite: replace these files. Qrels of other splits, which speak of the old files, are removed.

    Raises:
        UserError: the folder has files already, an id cannot stand in a qrels file, or writing fails.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise UserError(f"{folder}: exists and is not empty; pass --overwrite to replace it, or name another")
    for query_id, grades in retrieval_set.qrels.items():
        for item_id in (query_id, *grades):
            if _COLUMN_BREAK.search(item_id):
                raise UserError(f"{folder}: id {item_id!r} has a tab or a line break; rename it")
    qrels_path = folder / "qrels" / f"{split}.tsv"
    _write_items(folder / "corpus.jsonl", retrieval_set.corpus, {"title": ""}, overwrite)
    _write_items(folder / "queries.jsonl", retrieval_set.queries, {}, overwrite)
    with new_text_file(qrels_path, overwrite=overwrite) as file:
        file.write("\t".join(_HEADER) + "\n")
        for query_id, grades in retrieval_set.qrels.items():
            file.writelines(f"{query_id}\t{document_id}\t{grade}\n" for document_id, grade in grades.items())
    for stale in (path for path in _qrels_files(folder / "qrels") if path != qrels_path):
        stale.unlink()


def _write_items(
    path: Path, items: Iterable[Document] | Iterable[Query], extra: dict[str, str], overwrite: bool
) -> None:
    with new_text_file(path, overwrite=overwrite) as file:
        for item in items:
            metadata = {"language": item.language} if item.language else {}
            row = {"_id": item.id, **extra, "text": item.text, "metadata": metadata}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
