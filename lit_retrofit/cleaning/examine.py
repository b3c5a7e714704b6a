"""The first pass: each record by itself, and what later passes compare it by. Runs in worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.folding import fold, hash_text
from lit_retrofit.cleaning.leakage import LeakageIndex
from lit_retrofit.cleaning.options import Rules, Scope
from lit_retrofit.cleaning.record_rules import RecordRules
from lit_retrofit.cleaning.signatures import DOCUMENT_GRAM, QUERY_GRAM, Signatures, sign
from lit_retrofit.cleaning.verdicts import CODES, KEPT, Verdict
from lit_retrofit.cleaning.work import save_arrays
from lit_retrofit.data.records import Record

CHUNK = 1000  # records examined together: a second's work
_LABEL = 200  # characters kept of a label: NumPy gives all of a chunk the room of the longest


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


class _Signed(NamedTuple):
    """Signatures of a chunk's records: of all, or of none where nothing compares them."""

    queries: Signatures
    positives: Signatures


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
        verdicts = [self._record_rules(record) or self._known(record) for record in records]
        rows = [row for row, verdict in enumerate(verdicts) if verdict is None]
        signed = self._sign([records[row] for row in rows])
        stays = np.ones(len(rows), bool)
        for place, verdict in self._nearly_known([records[row] for row in rows], signed):
            verdicts[rows[place]] = verdict
            stays[place] = False
        kept = [records[row] for row, stay in zip(rows, stays.tolist(), strict=True) if stay]
        scope, near = self._rules.duplicates.of, self._rules.duplicates.near is not None
        documents = [[*record.positives, *record.negatives] for record in kept]
        hashed = [(hash_text(d.id), hash_text(d.text)) for found in documents for d in found]
        findings = Examined(
            rules=np.array([CODES[v.rule] if v else KEPT for v in verdicts], np.uint8),
            details=np.array([v.detail[:_LABEL] if v else "" for v in verdicts], np.str_),
            languages=np.array([(record.language or "")[:_LABEL] for record in records], np.str_),
            hashes=np.array([hash_text(*map(fold, compared(record, scope))) for record in kept], np.uint64),
            documents=np.array(hashed, np.uint64).reshape(-1, 2),
            document_counts=np.array([len(found) for found in documents], np.int32),
            queries=signed.queries[stays] if near and scope != "document" else signed.queries[:0],
            positives=signed.positives[stays] if near and scope != "query" else signed.positives[:0],
        )
        save_arrays(chunk.path, **{field.name: getattr(findings, field.name) for field in fields(findings)})
        return chunk.path

    def _sign(self, records: Sequence[Record]) -> _Signed:
        """The queries and first positives, where a rule compares them; else no rows."""
        leaks = self._leakage is not None and self._rules.leakage.near is not None
        scope = self._rules.duplicates.of if self._rules.duplicates.near is not None else None
        queries = records if leaks or scope in ("pair", "query") else []
        positives = records if leaks or scope in ("pair", "document") else []
        return _Signed(
            sign([record.query for record in queries], QUERY_GRAM),
            sign([record.positives[0].text for record in positives], DOCUMENT_GRAM),
        )

    def _nearly_known(self, records: Sequence[Record], signed: _Signed) -> Iterator[tuple[int, Verdict]]:
        """Places of records that are nearly of an evaluation set, and why; some of them more than once."""
        near = self._rules.leakage.near
        if self._leakage is None or near is None:
            return
        queries, documents = self._leakage.queries, self._leakage.documents
        further = [(place, d.text) for place, record in enumerate(records) for d in record.positives[1:]]
        places = [*range(len(records)), *(place for place, _ in further)]
        positives = np.concatenate([signed.positives, sign([text for _, text in further], DOCUMENT_GRAM)])
        for place, match in zip(places, documents.nearest(positives, near), strict=True):
            if match:
                yield place, _near("positive", documents.names, match)
        for place, match in enumerate(queries.nearest(signed.queries, near)):
            if match:
                yield place, _near("query", queries.names, match)

    def _known(self, record: Record) -> Verdict | None:
        """An equal id or text."""
        if self._leakage is None:
            return None
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
