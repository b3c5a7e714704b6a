"""What a reader read and what it left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from lit_retrofit.data.fields import BadRow
from lit_retrofit.errors import UserError, bad_field

_EXAMPLES = 20


@dataclass(frozen=True)
class ReadReport:
    """What came of reading one source.

    Attributes:
        path: the source as the user named it.
        format: the convention it was read in, as detected or as given.
        records: how many records came out.
        skipped: the line (or row) and the reason of the first rows left out, at most 20.
        skipped_counts: how many rows were left out for each reason.
        dropped_negatives: negatives left out because they equal a positive of their record.
    """

    path: str
    format: str
    records: int
    skipped: tuple[tuple[int, str], ...] = ()
    skipped_counts: dict[str, int] = field(default_factory=dict)
    dropped_negatives: int = 0

    @property
    def skipped_total(self) -> int:
        """How many rows were left out, for all reasons together."""
        return sum(self.skipped_counts.values())

    def __str__(self) -> str:
        """One line for the terminal or a log."""
        parts = [f"{self.path}: {self.records} records ({self.format})"]
        parts += [f"skipped {count}: {reason}" for reason, count in self.skipped_counts.items()]
        if self.dropped_negatives:
            parts.append(f"dropped {self.dropped_negatives} negatives equal to a positive of their record")
        return "; ".join(parts)


@dataclass
class Skips:
    """Decides over a bad row: stop at the first one, or count it and go on.

    Attributes:
        skip_invalid: count instead of stopping.
        examples: line and reason of the first bad rows.
        counts: bad rows per reason.
    """

    skip_invalid: bool
    examples: list[tuple[int, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def bad_row(self, path: str | Path, line: int, fault: BadRow, file: str = "") -> None:
        """Counts the row, or raises the user's error.

        Args:
            path: the file as the user named it.
            line: the row's line in it.
            fault: what is wrong with it.
            file: named in the reason where one source has several files.
        """
        if not self.skip_invalid:
            raise bad_field(path, line, fault.field, fault.problem, fault.remedy) from None
        self.note(line, f"{file}: {fault.reason}" if file else fault.reason)

    def note(self, line: int, reason: str) -> None:
        """Counts a row that is left out."""
        self.counts[reason] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((line, reason))

    def nothing_left(self, path: str) -> NoReturn:
        """Tells that no row of the source was usable."""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.counts.most_common(3))
        raise UserError(f"{path}: no usable record; every row was skipped: {reasons}; correct the file")
