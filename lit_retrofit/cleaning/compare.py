"""The second pass: what the first one found of all records, put together; texts are not needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.duplicates import Repeated, find_exact, find_near
from lit_retrofit.cleaning.examine import Examined
from lit_retrofit.cleaning.options import DuplicateOptions
from lit_retrofit.cleaning.signatures import VALUES, Signatures
from lit_retrofit.cleaning.verdicts import CODES, KEPT
from lit_retrofit.cleaning.work import Work
from lit_retrofit.data.capping import UNKNOWN, choose_capped

Kind = TypeVar("Kind", bound=np.generic)


@dataclass
class Decisions:
    """What becomes of every record, in the order of reading. 21 bytes a record.

    Attributes:
        rules: (records,) uint8, code of the rule that drops it, or `KEPT`.
        other: (records,) int64, for the rules that compare: the record that it repeats; else -1.
        similarity: (records,) float32, how similar it is to that one.
        ranks: (records,) int32, of its positive; 0 where it was not searched.
        languages: (records,) int32, number of its language in `language_names`.
        language_names: as the records name them; `UNKNOWN` where they do not.
    """

    rules: NDArray[np.uint8]
    other: NDArray[np.int64]
    similarity: NDArray[np.float32]
    ranks: NDArray[np.int32]
    languages: NDArray[np.int32]
    language_names: list[str]

    @property
    def kept(self) -> NDArray[np.int64]:
        """Numbers of the records that no rule dropped so far."""
        return np.flatnonzero(self.rules == KEPT)

    def drop(self, rule: str, rows: NDArray[np.int64]) -> None:
        """Drops records."""
        self.rules[rows] = CODES[rule]

    def drop_repeated(self, rule: str, found: Repeated) -> None:
        """Drops records, and notes which ones they repeat."""
        self.drop(rule, found.rows)
        self.other[found.rows] = found.of
        self.similarity[found.rows] = found.similarity


def compare(parts: Sequence[Path], options: DuplicateOptions, work: Work) -> Decisions:
    """Joins the findings of the first pass and finds repeated records.

    Args:
        parts: the files of the chunks, in their order.
        options: of duplicates.
        work: gets the signatures, as files that are memory-mapped.
    """
    rules, languages, hashes, documents, counts = [], [], [], [], []
    names: dict[str, int] = {}
    signed = _SignatureFiles(work)
    for path in parts:
        found = Examined.load(path)
        rules.append(found.rules)
        languages.append(_numbers(found.languages, names))
        hashes.append(found.hashes)
        documents.append(found.documents)
        counts.append(found.document_counts)
        signed.add(found)
    total = sum(map(len, rules))
    decisions = Decisions(
        rules=_join(rules),
        other=np.full(total, -1, np.int64),
        similarity=np.zeros(total, np.float32),
        ranks=np.zeros(total, np.int32),
        languages=_join(languages),
        language_names=list(names),
    )
    rows = decisions.kept
    equal, conflicts = _find_exact(hashes, documents, counts, options.exact)
    decisions.drop_repeated("exact_duplicate", _numbered(equal, rows))
    decisions.drop_repeated("id_conflict", _numbered(conflicts, rows))
    if options.near is not None and len(rows):
        among = np.flatnonzero(decisions.rules[rows] == KEPT)
        decisions.drop_repeated(
            "near_duplicate", _numbered(find_near(signed.open(), among, options.near), rows)
        )
    return decisions


def _find_exact(
    hashes: list[NDArray[np.uint64]],
    documents: list[NDArray[np.uint64]],
    counts: list[NDArray[np.int32]],
    exact: bool,
) -> tuple[Repeated, Repeated]:
    """Equal records and those in conflict. What it is given is used up: nothing holds more memory."""
    each = _join(counts)
    owners = np.repeat(np.arange(len(each)), each)
    # Where equal records may stay, each is a kind of its own.
    kinds = _join(hashes) if exact else np.arange(sum(map(len, hashes)), dtype=np.uint64)
    return find_exact(kinds, _join(documents), owners)


def _join(parts: list[NDArray[Kind]]) -> NDArray[Kind]:
    """The parts as one array. They are let go, or everything would be held twice."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _numbered(found: Repeated, rows: NDArray[np.int64]) -> Repeated:
    """From positions among the records that passed the first pass to numbers of records."""
    return Repeated(rows[found.rows], rows[found.of], found.similarity)


def _numbers(languages: NDArray[np.str_], names: dict[str, int]) -> NDArray[np.int32]:
    distinct, inverse = np.unique(languages, return_inverse=True)
    numbers = [names.setdefault(str(name) or UNKNOWN, len(names)) for name in distinct]
    return np.array(numbers, np.int32)[inverse]


def cap_languages(decisions: Decisions, most: int, seed: int) -> None:
    """Drops what is left of each language beyond so many records."""
    rows = decisions.kept
    names = {name: number for number, name in enumerate(decisions.language_names)}
    stays, _ = choose_capped(decisions.languages[rows], names, most, seed)
    decisions.drop("language_cap", rows[~stays])


class _SignatureFiles:
    """The signatures of all parts, one after another on disk."""

    def __init__(self, work: Work) -> None:
        self._paths = [work.path("queries.signatures"), work.path("positives.signatures")]
        self._rows = [0, 0]
        for path in self._paths:
            path.unlink(missing_ok=True)

    def add(self, found: Examined) -> None:
        for number, signatures in enumerate((found.queries, found.positives)):
            if len(signatures):
                with self._paths[number].open("ab") as file:
                    signatures.tofile(file)
                self._rows[number] += len(signatures)

    def open(self) -> list[Signatures]:
        return [
            np.memmap(path, np.uint16, "r", shape=(rows, VALUES))
            for path, rows in zip(self._paths, self._rows, strict=True)
            if rows
        ]
