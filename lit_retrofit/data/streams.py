"""Where a mixture takes its records from: what a stream is, and the one over records in memory.

A stream shows all its records once in each pass, in an order that is a function of a seed alone, and can
begin anywhere in it: nothing has to be replayed, and nothing but a position kept, to go on after a stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lit_retrofit.data.options import SourceOptions
from lit_retrofit.data.records import Record

Key = tuple[int, ...]
Sourced = tuple[Record, SourceOptions]
Member = tuple[Sequence[Record], int, SourceOptions]


class Stream(Protocol):
    """Records in a seeded order."""

    @property
    def label(self) -> str:
        """Names the stream in messages."""
        ...

    def __len__(self) -> int:
        """How many records a pass has."""
        ...

    def take(self, key: Key, start: int, count: int) -> list[Sourced]:
        """Records `start` to `start + count` of the pass that the key seeds."""
        ...

    def take_skips(self) -> list[tuple[str, str]]:
        """File and reason of each row that had to be replaced since the last call."""
        ...


class MemoryStream:
    """Records held in memory.

    Args:
        label: names them in messages.
        members: the list that each record is in, its place there, and its source. What replaces a record in
            its list is drawn from then on.
        neighbours: how many records follow each that has their positives as hard negatives.
    """

    def __init__(self, label: str, members: Sequence[Member], neighbours: int = 0) -> None:
        self.label = label
        self.members = members
        self._neighbours = neighbours
        self._by_positive: dict[str, list[int]] = {}
        self._ordered: tuple[Key | None, Sequence[int]] = (None, ())
        if neighbours:
            for i in range(len(members)):
                self._by_positive.setdefault(self._sourced(i)[0].positives[0].id, []).append(i)

    def __len__(self) -> int:
        return len(self.members)

    def _sourced(self, index: int) -> Sourced:
        records, place, source = self.members[index]
        return records[place], source

    def take(self, key: Key, start: int, count: int) -> list[Sourced]:
        """See `Stream`."""
        if self._ordered[0] != key:
            self._ordered = key, self._order(np.random.default_rng(key))
        return [self._sourced(i) for i in self._ordered[1][start : start + count]]

    def take_skips(self) -> list[tuple[str, str]]:
        """None: broken rows were told when they were read."""
        return []

    def _order(self, rng: np.random.Generator) -> Sequence[int]:
        """Every record once: at random, each followed by its `neighbours` that have not come yet."""
        shuffled = rng.permutation(len(self.members))
        if not self._neighbours:
            return shuffled  # type: ignore[return-value]  # an array of integers
        order: dict[int, None] = {}
        for i in shuffled.tolist():
            if i not in order:
                order[i] = None
                near = [j for j in self._near(i) if j not in order]
                for j in rng.permutation(len(near))[: self._neighbours]:
                    order[near[j]] = None
        return list(order)

    def _near(self, index: int) -> list[int]:
        """Records whose first positive is among this record's hard negatives."""
        negatives = self._sourced(index)[0].negatives
        return list(dict.fromkeys(j for n in negatives for j in self._by_positive.get(n.id, ())))
