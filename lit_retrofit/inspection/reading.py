"""Reads sources once, to the end or a limit: counts over all rows, and a random sample to look into."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from rich.progress import Progress

from lit_retrofit.data.adapting import Adapter
from lit_retrofit.data.formats import stream_records
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Record
from lit_retrofit.data.source_options import SourceOptions
from lit_retrofit.data.sources import locate
from lit_retrofit.data.tables import find_files
from lit_retrofit.retrieval.copied import COPIED_WORDS, find_copied

_MOST_GROUPS = 20  # a field `source` with a value per record must not make a page of thousands of sections
_OTHERS = "others"
UNKNOWN = "unknown"


@dataclass
class Tally:
    """Counts over all records that were read of a group.

    Attributes:
        records: how many.
        languages: of the queries.
        crossing: records whose first positive has another language than the query.
        tasks: kinds of query.
        positives: of all records together.
        negatives: likewise.
        without_negatives: records that have none.
        repeated_queries: records whose query an earlier one has too.
        repeated_pairs: records whose query and first positive an earlier one has too.
        distinct_documents: positives and negatives of different texts.
        copied: records that `clean` drops as copied: a query of five words or more stands in a positive.
        identical: hard negatives that are a positive of their record, by id or text; reading drops them.
        queries: hashes of the queries.
    """

    records: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    crossing: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    positives: int = 0
    negatives: int = 0
    without_negatives: int = 0
    repeated_queries: int = 0
    repeated_pairs: int = 0
    copied: int = 0
    identical: int = 0
    queries: set[int] = field(default_factory=set)
    _pairs: set[int] = field(default_factory=set)
    _documents: set[int] = field(default_factory=set)

    @property
    def distinct_documents(self) -> int:
        """Positives and negatives of different texts."""
        return len(self._documents)

    def add(self, record: Record) -> None:
        """Counts a record."""
        first = record.positives[0]
        self.records += 1
        self.languages[record.language or UNKNOWN] += 1
        self.tasks[record.task or UNKNOWN] += 1
        self.crossing += bool(record.language and first.language and record.language != first.language)
        self.positives += len(record.positives)
        self.negatives += len(record.negatives)
        self.without_negatives += not record.negatives
        self.copied += find_copied(record, COPIED_WORDS) is not None
        query, pair = hash(record.query), hash((record.query, first.text))
        self.repeated_queries += query in self.queries
        self.repeated_pairs += pair in self._pairs
        self.queries.add(query)
        self._pairs.add(pair)
        self._documents.update(hash(d.text) for d in (*record.positives, *record.negatives))
        ids, texts = {d.id for d in record.positives}, {d.text for d in record.positives}
        self.identical += sum(d.id in ids or d.text in texts for d in record.negatives)


@dataclass
class Group:
    """The records of one source, or of one value of their field `source`.

    Attributes:
        name: of the source, with that value behind it.
        tally: counts over all of them.
        sample: some of them, each with the same chance to be among these, in random order.
    """

    name: str
    tally: Tally = field(default_factory=Tally)
    sample: list[Record] = field(default_factory=list)

    def add(self, record: Record, limit: int, rng: np.random.Generator) -> None:
        """Counts a record and perhaps keeps it (reservoir sampling, Vitter's algorithm R)."""
        self.tally.add(record)
        if not limit or len(self.sample) < limit:
            self.sample.append(record)
        elif (place := int(rng.integers(self.tally.records))) < limit:
            self.sample[place] = record


@dataclass(frozen=True)
class ReadSource:
    """What was read of a source.

    Attributes:
        name: its label.
        path: as the options name it.
        format: the convention of its rows.
        groups: its records, by their own field `source` where they have one.
        complete: whether there was no more to read.
        skipped: rows that are no valid record, per reason.
        examples: place and reason of the first of these.
    """

    name: str
    path: str
    format: str
    groups: tuple[Group, ...]
    complete: bool
    skipped: dict[str, int]
    examples: tuple[str, ...]


def read_source(
    source: SourceOptions, *, limit: int, scan: int, seed: int, format: str | None, progress: Progress
) -> ReadSource:
    """Reads a source, part by part; rows that are no valid record, and broken lines of JSON, are counted.

    Args:
        source: a named one already resolved.
        limit: records of a group to keep; 0 keeps all.
        scan: rows to read of each file or language; 0 reads all.
        seed: of the sample.
        format: where the source does not say.
        progress: shows how many rows were read.

    Raises:
        UserError: the source cannot be read, or no row of it is a valid record.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, Group] = {}
    skips = Skips(skip_invalid=True)
    examples: list[str] = []
    complete, told = True, "?"
    bar = progress.add_task(f"Reading {source.label}", total=None)
    for path, part in _parts(source):
        mine = Skips(skip_invalid=True)
        told, records = stream_records(
            path, mine, part.format or format, adapter=Adapter(part), skip_broken=True
        )
        for read, (_, record) in enumerate(islice(records, scan or None), 1):
            _group(groups, source, record).add(record, limit, rng)
            if not read % 1000:
                progress.update(bar, advance=1000)
        complete &= next(iter(records), None) is None
        skips.counts.update(mine.counts)
        examples += [f"{path}:{line}: {reason}" for line, reason in mine.examples]
    if not groups:
        skips.nothing_left(source.path)
    for group in groups.values():
        rng.shuffle(group.sample)
    found = tuple(sorted(groups.values(), key=lambda group: -group.tally.records))
    return ReadSource(
        source.label, source.path, told, found, complete, dict(skips.counts), tuple(examples[:5])
    )


def _parts(source: SourceOptions) -> list[tuple[str | Path, SourceOptions]]:
    """Every place to read: languages, and the files that a pattern names."""
    places: list[tuple[str | Path, SourceOptions]] = []
    for part in source.parts():
        where = locate(part.path)
        if source.stream and isinstance(where, Path):
            places += [(file, part) for file in find_files(part.path)]
        else:
            places.append((where, part))
    return places


def _group(groups: dict[str, Group], source: SourceOptions, record: Record) -> Group:
    name = f"{source.label}/{record.source}" if record.source else source.label
    if name not in groups and len(groups) >= _MOST_GROUPS:
        name = f"{source.label}/{_OTHERS}"
    return groups.setdefault(name, Group(name))
