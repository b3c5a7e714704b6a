"""The first pass: each record by itself, and what later passes compare it by. Runs in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.folding import fold, hash_text
from lit_retrofit.cleaning.leakage import LeakageIndex
from lit_retrofit.cleaning.options import Rules, Scope
from lit_retrofit.cleaning.record_rules import RecordRules
from lit_retrofit.cleaning.signatures import DOCUMENT_GRAM, QUERY_GRAM, VALUES, Signatures, sign
from lit_retrofit.cleaning.verdicts import CODES, KEPT, Verdict
from lit_retrofit.cleaning.work import save_arrays
from lit_retrofit.data.records import Record

CHUNK = 1000  # records examined together: a second's work


class Chunk(NamedTuple):
    """Consecutive records of one source.

    Attributes:
        path: where what is found goes.
        records: to examine.
    """

    path: Path
    records: Sequence[Record]


@dataclass(frozen=True)
class Examined:
    """What is found of a chunk; n records, k of them not dropped yet, d documents of these.

    Attributes:
        rules: (n,) uint8, code of the rule that dropped the record, or `KEPT`.
        details: (n,) what the rule found, as text.
        languages: (n,) the language's name, or "".
        hashes: (k,) uint64 of what `DuplicateOptions.of` compares, folded.
        documents: (d, 2) uint64 of each document's id and text, of positives and negatives.
        document_counts: (k,) int32 how many of them each record has.
        queries: (k, `VALUES`) signatures; (0, `VALUES`) where they are not compared.
        positives: likewise, of the first positive.
    """

    rules: NDArray[np.uint8]
    details: NDArray[np.str_]
    languages: NDArray[np.str_]
    hashes: NDArray[np.uint64]
    documents: NDArray[np.uint64]
    document_counts: NDArray[np.int32]
    queries: Signatures
    positives: Signatures

    @classmethod
    def load(cls, path: Path) -> Examined:
        """Reads what an `Examiner` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def compared(record: Record, scope: Scope) -> tuple[str, ...]:
    """The texts of a record that tell it from others."""
    texts = {"query": record.query, "document": record.positives[0].text}
    return tuple(texts.values()) if scope == "pair" else (texts[scope],)


class Examiner:
    """Examines chunks and writes what it finds.

    Args:
        rules: the user's options.
        leakage: the evaluation's texts, where there are any.
    """

    def __init__(self, rules: Rules, leakage: LeakageIndex | None) -> None:
        self._rules = rules
        self._record_rules = RecordRules(rules)
        self._leakage = leakage

    def __call__(self, chunk: Chunk) -> Path:
        """Examines a chunk; returns where the findings are."""
        records = chunk.records
        verdicts = [self._record_rules(record) for record in records]
        verdicts = self._with_leaks(records, verdicts)
        kept = [record for record, verdict in zip(records, verdicts, strict=True) if verdict is None]
        duplicates = self._rules.duplicates
        signed = duplicates.near is not None
        documents = [[*record.positives, *record.negatives] for record in kept]
        hashed = [(hash_text(d.id), hash_text(d.text)) for found in documents for d in found]
        findings = Examined(
            rules=np.array([CODES[v.rule] if v else KEPT for v in verdicts], np.uint8),
            details=np.array([v.detail if v else "" for v in verdicts], np.str_),
            languages=np.array([record.language or "" for record in records], np.str_),
            hashes=np.array(
                [hash_text(*map(fold, compared(record, duplicates.of))) for record in kept], np.uint64
            ),
            documents=np.array(hashed, np.uint64).reshape(-1, 2),
            document_counts=np.array([len(found) for found in documents], np.int32),
            queries=_sign_queries(kept if signed and duplicates.of != "document" else []),
            positives=_sign_positives(kept if signed and duplicates.of != "query" else []),
        )
        save_arrays(chunk.path, **{field.name: getattr(findings, field.name) for field in fields(findings)})
        return chunk.path

    def _with_leaks(self, records: Sequence[Record], verdicts: list[Verdict | None]) -> list[Verdict | None]:
        if self._leakage is None:
            return verdicts
        found = [verdict or self._known(record) for record, verdict in zip(records, verdicts, strict=True)]
        rows = [row for row, verdict in enumerate(found) if verdict is None]
        near = self._rules.leakage.near
        if near is None:
            return found
        index = self._leakage
        queries = index.queries.nearest(sign([records[row].query for row in rows], QUERY_GRAM), near)
        positives = [(row, document.text) for row in rows for document in records[row].positives]
        signed = sign([text for _, text in positives], DOCUMENT_GRAM)
        for row, match in zip(rows, queries, strict=True):
            if match:
                found[row] = _near("query", index.queries.names, match)
        for (row, _), match in zip(positives, index.documents.nearest(signed, near), strict=True):
            if match and found[row] is None:
                found[row] = _near("positive", index.documents.names, match)
        return found

    def _known(self, record: Record) -> Verdict | None:
        """An equal id or text."""
        assert self._leakage is not None
        queries, documents = self._leakage.queries, self._leakage.documents
        if self._rules.leakage.ids:
            if record.id in queries.ids:
                return Verdict("leaked_id", f"query is {queries.names[queries.ids[record.id]]}")
            for positive in record.positives:
                if positive.id in documents.ids:
                    return Verdict("leaked_id", f"positive is {documents.names[documents.ids[positive.id]]}")
        number = queries.hashes.get(hash_text(fold(record.query)))
        if number is not None:
            return Verdict("leaked_exact", f"query equals {queries.names[number]}")
        for positive in record.positives:
            number = documents.hashes.get(hash_text(fold(positive.text)))
            if number is not None:
                return Verdict("leaked_exact", f"positive equals {documents.names[number]}")
        return None


def _near(what: str, names: Sequence[str], match: tuple[int, float]) -> Verdict:
    return Verdict("leaked_near", f"{what} is {match[1]:.2f} similar to {names[match[0]]}")


def _sign_queries(records: Sequence[Record]) -> Signatures:
    return sign([record.query for record in records], QUERY_GRAM) if records else _nothing()


def _sign_positives(records: Sequence[Record]) -> Signatures:
    return sign([record.positives[0].text for record in records], DOCUMENT_GRAM) if records else _nothing()


def _nothing() -> Signatures:
    return np.empty((0, VALUES), np.uint16)
