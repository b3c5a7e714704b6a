"""The data to be cleaned: one or several sources, read as often as there are passes over them."""

from __future__ import annotations

import glob
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lit_retrofit.data import hub
from lit_retrofit.data.formats import stream_records
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Record
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

Stamp = list[tuple[str, int, int]]


@dataclass
class Sources:
    """Records of all sources, one after another.

    Attributes:
        paths: files, folders or hub data sets.
        format: of all of them, where it cannot be told.
        corpus: Tevatron's documents.
        skip_invalid: pass over broken rows.
        skipped: how many rows were passed over, for each reason, in the latest reading.
        lines: of each record, its line in its source, once they were read.
        starts: number of each source's first record, once they were read.
    """

    paths: Sequence[str]
    format: str | None = None
    corpus: Path | None = None
    skip_invalid: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    lines: array[int] = field(default_factory=lambda: array("q"))
    starts: list[int] = field(default_factory=list)

    def read(self) -> Iterator[Record]:
        """Streams all records.

        Raises:
            UserError: a source cannot be read, or a row of it is broken.
        """
        self.skipped, self.lines, self.starts = {}, array("q"), []
        for path in self.paths:
            self.starts.append(len(self.lines))
            skips = Skips(self.skip_invalid)
            _, records = stream_records(path, skips, self.format, self.corpus, skip_broken=True)
            for line, record in records:
                self.lines.append(line)
                yield record
            for reason, count in skips.counts.items():
                self.skipped[reason] = self.skipped.get(reason, 0) + count
            if len(self.lines) == self.starts[-1] and skips.counts:
                skips.nothing_left(path)

    def place(self, number: int) -> str:
        """Source and line of a record that was read."""
        return f"{self.paths[bisect_right(self.starts, number) - 1]}:{self.lines[number]}"


def find_sources(data: Sequence[str]) -> list[str]:
    """The sources that the user names: patterns such as ``data/part-*.jsonl`` become the files they match.

    Raises:
        UserError: a pattern matches nothing, or a source is named twice.
    """
    found: list[str] = []
    for name in data:
        path = resolve_data(name)
        if name.startswith(hub.PREFIX):
            found.append(name)
        elif path.exists() or not glob.has_magic(str(path)):
            found.append(str(path))
        else:
            matches = sorted(glob.glob(str(path)))
            if not matches:
                raise UserError(f"{name}: no such file; check the pattern")
            found += matches
    if not found:
        raise UserError("data names no file; give at least one")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise UserError(f"{twice[0]}: named twice; name each source once")
    return found


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
