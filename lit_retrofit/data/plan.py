"""How many queries each batch of an epoch takes from which stream: a pure function of sizes and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shape:
    """What all epochs have in common.

    Attributes:
        sizes: records of each stream.
        batch_size: queries of a batch.
        lead: how many of them come from the batch's one leading stream; 0 for mixed batches.
        shares: of each stream in the queries, summing to one; None shows every record once per epoch.
    """

    sizes: tuple[int, ...]
    batch_size: int
    lead: int
    shares: tuple[float, ...] | None = None

    @property
    def batches(self) -> int:
        """Batches of an epoch, the same in all of them."""
        if self.lead and self.shares is None:
            return sum(size // self.batch_size for size in self.sizes)
        return sum(self.sizes) // self.batch_size


@dataclass(frozen=True)
class Plan:
    """One epoch.

    Attributes:
        counts: (batches, streams) int32, queries that a batch takes from a stream.
        starts: (batches, streams) int64, where in the stream they begin. A stream that is shown several times
            counts on: with n records, pass p begins at p · n. No batch takes from two passes of a stream.
    """

    counts: NDArray[np.int32]
    starts: NDArray[np.int64]


def make_plan(shape: Shape, seed: Sequence[int]) -> Plan:
    """Deals an epoch's queries out to its batches.

    Without shares, mixed batches are what one permutation of all records would give: the streams' labels are
    permuted and cut. With shares, each stream gets its part by the largest remainders.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array(shape.sizes)
    counts = np.zeros((shape.batches, len(sizes)), np.int32)
    rest = sizes
    if shape.lead:
        leads = _leads(shape, sizes)
        counts[np.arange(shape.batches), rng.permutation(np.repeat(np.arange(len(sizes)), leads))] = (
            shape.lead
        )
        rest = sizes - leads * shape.lead
    slots = shape.batch_size - shape.lead
    if slots:
        wanted = rest if shape.shares is None else _parts(shape.batches * slots, shape.shares)
        counts += _mixed(wanted, shape.batches, slots, rng)
    if shape.shares is None:
        starts = np.cumsum(counts, axis=0, dtype=np.int64) - counts
    else:
        _cap(counts, sizes)
        starts = np.stack([_starts(counts[:, i], int(size)) for i, size in enumerate(sizes)], axis=1)
    return Plan(counts, starts)


def _leads(shape: Shape, sizes: NDArray) -> NDArray:
    """How many batches each stream leads."""
    return sizes // shape.batch_size if shape.shares is None else _parts(shape.batches, shape.shares)


def _parts(total: int, shares: Sequence[float]) -> NDArray:
    """Whole numbers that sum to the total, as near to the shares as can be (largest remainders)."""
    exact = total * np.array(shares)
    parts = np.floor(exact).astype(np.int64)
    parts[np.argsort(parts - exact, kind="stable")[: total - parts.sum()]] += 1
    return parts


def _mixed(wanted: NDArray, batches: int, slots: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """(batches, streams) of one permutation of all labels, cut into batches."""
    streams = len(wanted)
    if streams == 1:
        return np.full((batches, 1), slots, np.int32)
    kind = np.int16 if streams <= 1 << 15 else np.int32  # one for each record: no larger than needed
    labels = np.repeat(np.arange(streams, dtype=kind), wanted)
    dealt = rng.permutation(labels)[: batches * slots].reshape(batches, slots)
    return np.stack([(dealt == i).sum(axis=1, dtype=np.int32) for i in range(streams)], axis=1)


def _cap(counts: NDArray[np.int32], sizes: NDArray) -> None:
    """No batch takes more from a stream than it has: what is over goes to the stream with most room."""
    for row in np.flatnonzero((counts > sizes).any(axis=1)):
        over = np.maximum(counts[row] - sizes, 0)
        counts[row] -= over.astype(np.int32)
        left = int(over.sum())
        for stream in np.argsort(counts[row] - sizes, kind="stable"):
            taken = min(left, int(sizes[stream] - counts[row, stream]))
            counts[row, stream] += taken
            left -= taken


def _starts(counts: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Where each batch begins in a stream that is shown as often as it takes."""
    starts = np.cumsum(counts, dtype=np.int64) - counts
    if counts.sum() <= size:
        return starts
    position = 0
    for batch, count in enumerate(counts.tolist()):
        if position % size + count > size:
            position += size - position % size  # the rest of this pass fills no batch's part
        starts[batch] = position
        position += count
    return starts
