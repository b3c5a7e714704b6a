"""The data to be cleaned: one or several sources, read as often as there are passes over them."""

from __future__ import annotations

import glob
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lit_retrofit.data import catalogue
from lit_retrofit.data.adapting import Adapter
from lit_retrofit.data.formats import stream_records
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Record
from lit_retrofit.data.source_options import SourceOptions, check_source
from lit_retrofit.data.sources import locate
from lit_retrofit.errors import UserError

Stamp = list[tuple[str, int, int]]


@dataclass
class Sources:
    """Records of all sources, one after another.

    Attributes:
        parts: files, folders or hub data sets, as `find_sources` gives them.
        format: of those that do not say it, where it cannot be told.
        corpus: Tevatron's documents.
        skip_invalid: pass over broken rows.
        skipped: how many rows were passed over, for each reason, in the latest reading to the end.
        lines: of each record, its line in its source, once all were read.
        starts: number of each source's first record, once all were read.
    """

    parts: Sequence[SourceOptions]
    format: str | None = None
    corpus: Path | None = None
    skip_invalid: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    lines: array[int] = field(default_factory=lambda: array("q"))
    starts: list[int] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """Where each source is."""
        return [part.path for part in self.parts]

    def read(self) -> Iterator[Record]:
        """Streams all records.

        Raises:
            UserError: a source cannot be read, or a row of it is broken.
        """
        skipped: Counter[str] = Counter()
        lines: array[int] = array("q")
        starts: list[int] = []
        for part in self.parts:
            starts.append(len(lines))
            skips = Skips(self.skip_invalid)
            _, records = stream_records(
                part.path, skips, part.format or self.format, self.corpus, adapter=Adapter(part),
                skip_broken=True,
            )  # fmt: skip
            for line, record in records:
                lines.append(line)
                yield record
            skipped.update(skips.counts)
            if len(lines) == starts[-1] and skips.counts:
                skips.nothing_left(part.path)
        # Set as a whole: while they are read again, the place of a record further on is asked for.
        self.skipped, self.lines, self.starts = dict(skipped), lines, starts

    def place(self, number: int) -> str:
        """Source and line of a record that was read."""
        return f"{self.parts[bisect_right(self.starts, number) - 1].path}:{self.lines[number]}"


def find_sources(data: Sequence[str]) -> list[SourceOptions]:
    """The sources that the user names, each with what tells how it is read and nothing else.

    A pattern such as ``data/part-*.jsonl`` becomes the files it matches, and a ``source:NAME`` its languages.

    Raises:
        UserError: a pattern matches nothing, no source has a name, its settings are no source's, or a source
            is named twice.
    """
    found = [file for name in data for part in _named(name) for file in _files(part)]
    if not found:
        raise UserError("data names no file; give at least one")
    twice = [part for part, count in Counter(found).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0].path}: named twice; name each source once")
    return found


def _named(name: str) -> list[SourceOptions]:
    """The parts of a named source; another name as it is."""
    source = SourceOptions(name)
    if not name.startswith(catalogue.PREFIX):
        return [source]
    source = catalogue.resolve_source(source)
    check_source(source)
    return source.parts()


def _files(part: SourceOptions) -> list[SourceOptions]:
    """What a part's path means, with the settings that reading depends on: how it is mixed is no matter."""
    where = locate(part.path)
    paths = [str(where)]
    if isinstance(where, Path) and not where.exists() and glob.has_magic(paths[0]):
        paths = sorted(glob.glob(paths[0]))
        if not paths:
            raise UserError(f"{part.path}: no such file; check the pattern")
    return [
        SourceOptions(
            path,
            format=part.format,
            fields=part.fields,
            language=part.language,
            document_language=part.document_language,
            task=part.task,
        )
        for path in paths
    ]


def stamp(paths: Sequence[str | Path | None]) -> Stamp:
    """Names, sizes and times of change of files, and of the files of folders: what a run depends on."""
    stamps: Stamp = []
    for path in (Path(path) for path in paths if path is not None):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                facts = file.stat()
                stamps.append((str(file), facts.st_size, facts.st_mtime_ns))
    return stamps
