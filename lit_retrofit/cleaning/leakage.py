"""The texts and ids of evaluation sets, held so that a record that gives one away is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.cleaning.folding import fold, hash_text
from lit_retrofit.cleaning.options import LeakageOptions
from lit_retrofit.cleaning.signatures import (
    DOCUMENT_GRAM,
    QUERY_GRAM,
    VALUES,
    Signatures,
    band_keys,
    band_rows,
    sign,
    similarity,
)
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Document, RetrievalSet, is_made_up
from lit_retrofit.data.splitting import to_retrieval_set
from lit_retrofit.evaluation.benchmarks import find_benchmarks
from lit_retrofit.quickstart.embedded_data import resolve_data


@dataclass(frozen=True)
class Guarded:
    """Texts of one kind (queries, or documents) that must not be in a training record.

    Attributes:
        names: "SET ID" of each text, for reports.
        ids: each id that its source gave it, with the number of a text that has it.
        hashes: of each folded text, likewise.
        signatures: (texts, `VALUES`) uint16; no rows where only equal texts count.
        keys: (bands, texts) uint64, each band ascending.
        order: (bands, texts) the number of the text that each key is of.
        rows: values in a band.
    """

    names: tuple[str, ...]
    ids: dict[str, int]
    hashes: dict[int, int]
    signatures: Signatures
    keys: NDArray[np.uint64]
    order: NDArray[np.int64]
    rows: int

    @classmethod
    def of(cls, items: Sequence[tuple[str, str, str]], near: float | None, gram: int) -> Guarded:
        """Of (set's name, id, text) triples, each distinct text once in what is compared."""
        ids: dict[str, int] = {}
        hashes: dict[int, int] = {}
        for number, (_, item_id, text) in enumerate(items):
            if not is_made_up(item_id):
                ids.setdefault(item_id, number)
            hashes.setdefault(hash_text(fold(text)), number)
        names = tuple(f"{name} {item_id}" for name, item_id, _ in items)
        if near is None or not items:
            nothing = np.empty((0, 0))
            signatures = np.empty((0, VALUES), np.uint16)
            return cls(names, ids, hashes, signatures, nothing.astype(np.uint64), nothing.astype(int), 0)
        signatures = sign([text for _, _, text in items], gram)
        rows = band_rows(near, 1)
        keys = np.stack([band_keys([signatures], band, rows) for band in range(VALUES // rows)])
        order = np.argsort(keys, axis=1, kind="stable")
        return cls(names, ids, hashes, signatures, np.take_along_axis(keys, order, 1), order, rows)

    def nearest(self, signatures: Signatures, least: float) -> list[tuple[int, float] | None]:
        """For each row, the most similar text that reaches the similarity, and how similar it is."""
        best: list[tuple[int, float] | None] = [None] * len(signatures)
        for band in range(len(self.keys)):
            keys = band_keys([signatures], band, self.rows)
            starts = np.searchsorted(self.keys[band], keys, "left")
            ends = np.searchsorted(self.keys[band], keys, "right")
            for row in np.flatnonzero(ends > starts).tolist():
                candidates = self.order[band, starts[row] : ends[row]]
                scores = similarity(self.signatures[candidates], signatures[row])
                top = int(np.argmax(scores))
                found = best[row]
                if scores[top] >= least and (found is None or scores[top] > found[1]):
                    best[row] = int(candidates[top]), float(scores[top])
        return best


@dataclass(frozen=True)
class LeakageIndex:
    """What `LeakageOptions.against` names: its judged queries, and its documents as the options say."""

    queries: Guarded
    documents: Guarded
    summary: tuple[str, ...]


def read_evaluation_sets(options: LeakageOptions) -> LeakageIndex:
    """Reads the sets and signs their texts.

    Raises:
        UserError: a set cannot be read.
    """
    queries: list[tuple[str, str, str]] = []
    documents: list[tuple[str, str, str]] = []
    summary = []
    for name in options.against:
        known = len(queries), len(documents)
        for found in _read(name):
            queries += [(found.name, query.id, query.text) for query in found.queries]
            documents += [(found.name, d.id, d.text) for d in _documents(found, options.documents)]
        counts = f"{len(queries) - known[0]} queries, {len(documents) - known[1]} documents"
        summary.append(f"{name}: {counts}")
    return LeakageIndex(
        Guarded.of(queries, options.near, QUERY_GRAM),
        Guarded.of(documents, options.near, DOCUMENT_GRAM),
        tuple(summary),
    )


def _read(name: str) -> Iterator[RetrievalSet]:
    """The sets that a name means, one at a time: a benchmark's corpora need not fit into memory together."""
    data, split = _parse(name)
    path = resolve_data(data)
    if path.is_file():
        yield to_retrieval_set(read_records(path)[0], path.name)
        return
    # A folder of several splits has queries without judgements in this one, and that is no fault here.
    for benchmark in find_benchmarks(data, split=split, skip_invalid=True):
        for part in benchmark.parts:
            yield part.load()


def _parse(name: str) -> tuple[str, str | None]:
    """What stands before and behind the last @, unless that is part of a file's name."""
    data, _, split = name.rpartition("@")
    return (data, split) if data and not Path(name).exists() else (name, None)


def _documents(found: RetrievalSet, scope: str) -> Iterable[Document]:
    if scope == "none":
        return ()
    relevant = {id for grades in found.qrels.values() for id, grade in grades.items() if grade > 0}
    return (document for document in found.corpus if scope == "corpus" or document.id in relevant)


def evaluation_files(options: LeakageOptions) -> list[Path]:
    """The files and folders that the options name, as far as they are there."""
    return [resolve_data(_parse(name)[0]) for name in options.against]
