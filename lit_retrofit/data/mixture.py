"""Which queries make up each batch, on every device: a pure function of the epoch and the position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from lit_retrofit.data.content_hash import hash_records
from lit_retrofit.data.options import SamplingOptions, SourceOptions, check_sampling
from lit_retrofit.data.plan import Plan, Shape, make_plan
from lit_retrofit.data.records import Record
from lit_retrofit.data.sampling import Draw, draw, numbers_needed
from lit_retrofit.data.streams import Member, MemoryStream, Sourced, Stream
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.errors import UserError

_ORDER, _PLAN, _DRAWS = range(3)  # keeps the seeds of the three apart

Loaded = tuple[SourceOptions, list[Record] | TableStream]


class Mixture:
    """Batches of draws from several sources.

    All batches have `batch_size` queries, over all devices: what does not fill one is left out (a short batch
    has fewer negatives and spikes the gradient), another rest in each epoch. Fewer records than
    `batch_size` make one batch, where batches are mixed.

    The batch at a position depends on the seed, the epoch and the position alone: any worker can make it,
    every device knows the whole batch and takes its own part, and two numbers are all there is to save.

    Args:
        sources: every source with its records, in memory or on disk.
        sampling: how batches are drawn.
        devices: how many share a batch.
        device: which of them this is, from 0.

    Raises:
        UserError: there are no records, an option is out of range, or a batch cannot be filled as asked.
    """

    def __init__(
        self, sources: Sequence[Loaded], sampling: SamplingOptions, devices: int = 1, device: int = 0
    ) -> None:
        self._loaded = tuple(sources)
        self.sources = tuple(source for source, _ in sources)
        check_sampling(sampling, self.sources)
        self.sampling = sampling
        weighted = sampling.alpha != 1 or any(source.weight is not None for source in self.sources)
        self.streams = _streams(sources, sampling, weighted)
        self.shape = _shape(self.streams, sampling, devices, weighted)
        self._part = slice(
            self.shape.batch_size * device // devices, self.shape.batch_size * (device + 1) // devices
        )
        self._devices = devices
        self._numbers = numbers_needed(sampling, self.sources)
        self._planned: tuple[int, Plan] | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.shape.batches

    @property
    def records(self) -> int:
        """Of all sources together."""
        return sum(self.shape.sizes)

    @property
    def left_out(self) -> int:
        """Records of an epoch that fill no batch; 0 where weights decide what is shown how often."""
        return 0 if self.shape.shares else self.records - len(self) * self.shape.batch_size

    def batch(self, epoch: int, position: int) -> list[Draw]:
        """This device's part of a batch."""
        plan = self._plan(epoch)
        drawn: list[Sourced] = []
        for i, stream in enumerate(self.streams):
            count = int(plan.counts[position, i])
            if count:
                shown, start = divmod(int(plan.starts[position, i]), len(stream))
                key = (self.sampling.seed, _ORDER, i, epoch, shown)
                drawn += stream.take(key, start, count)
        rng = np.random.default_rng((self.sampling.seed, _DRAWS, epoch, position))
        if len(self.streams) > 1:  # every device gets a like part of every stream
            drawn = [drawn[i] for i in rng.permutation(len(drawn))]
        uniform = rng.random((len(drawn), self._numbers)).tolist()
        draws = [
            draw(record, source, self.sampling, uniform[i], i) for i, (record, source) in enumerate(drawn)
        ]
        if self._devices == 1:
            return draws
        shared = tuple(draws)
        return [one._replace(shared=shared) for one in draws[self._part]]

    def take_skips(self) -> list[tuple[str, str]]:
        """File and reason of each row that had to be replaced since the last call."""
        return [skip for stream in self.streams for skip in stream.take_skips()]

    def identity(self) -> dict[str, Any]:
        """What must be the same for an epoch and a position to mean the same batch."""
        return {
            **{f"data.sampling.{name}": value for name, value in asdict(self.sampling).items()},
            "the sources": [[source.label, source.weight] for source in self.sources],
            "the records of each source or group": [[s.label, len(s)] for s in self.streams],
            "shuffle_buffer of each streamed source": [
                [stream.label, stream.source.shuffle_buffer]
                for stream in self.streams
                if isinstance(stream, TableStream)
            ],
            "the content of each source (its files, data.options.seed and validation_share)": self._contents,
        }

    @cached_property
    def _contents(self) -> list[list[str]]:
        """Of each source a hash. It takes a second for a million records, and waits for a checkpoint."""
        return [
            [source.label, part.content() if isinstance(part, TableStream) else hash_records(part)]
            for source, part in self._loaded
        ]

    def _plan(self, epoch: int) -> Plan:
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, make_plan(self.shape, (self.sampling.seed, _PLAN, epoch))
        return self._planned[1]


def _streams(sources: Sequence[Loaded], sampling: SamplingOptions, weighted: bool) -> list[Stream]:
    """A stream for each source on disk, and for each group of records that has to be told apart."""
    groups: dict[tuple[str, ...], list[Member]] = defaultdict(list)
    tables: list[Stream] = []
    for source, records in sources:
        if isinstance(records, TableStream):
            _check_streamed(source, sampling)
            tables.append(records)
            continue
        if not records:
            raise UserError(
                f"source '{source.label}' has no training records left; check its file and options"
            )
        for place, record in enumerate(records):
            group = [f"source '{source.label}'"] if weighted else []
            name = (*group, *group_of(record, source, sampling.homogeneous))
            groups[name].append((records, place, source))
    if not groups and not tables:
        raise UserError("there are no training records to sample from; check data.options.train")
    found = [
        MemoryStream(", ".join(name) or "all records", members, sampling.neighbours)
        for name, members in sorted(groups.items())
    ]
    return [*found, *tables]


def group_of(record: Record, source: SourceOptions, keys: Sequence[str]) -> tuple[str, ...]:
    """Names what a record has in common with others, in the respects that the keys name."""
    names = []
    for key in keys:
        if key == "source":
            part = f"/{record.source}" if record.source else ""
            names.append(f"source '{source.label}{part}'")
        elif key == "length":
            names.append(f"length below {1 << len(record.positives[0].text).bit_length()} characters")
        else:
            names.append(f"{key} '{getattr(record, key) or 'unknown'}'")
    return tuple(names)


def _check_streamed(source: SourceOptions, sampling: SamplingOptions) -> None:
    finer = [key for key in sampling.homogeneous if key != "source"]
    if finer:
        raise UserError(
            f"source '{source.label}' is streamed and cannot be told apart by {finer[0]}; write a file for "
            "each, or set data.sampling.homogeneous to [source]"
        )
    if sampling.neighbours:
        raise UserError(
            f"source '{source.label}' is streamed, and neighbours need all records in memory; set "
            "data.sampling.neighbours to 0"
        )


def _shape(streams: Sequence[Stream], sampling: SamplingOptions, devices: int, weighted: bool) -> Shape:
    sizes = tuple(len(stream) for stream in streams)
    size = sampling.batch_size
    if size % devices:
        raise UserError(
            f"data.sampling.batch_size is {size}, the queries of all {devices} devices; make it a multiple "
            f"of {devices}"
        )
    shares = _shares(streams, sampling) if weighted else None
    lead = 0
    if sampling.homogeneous:
        lead = max(1, round(size * sampling.homogeneous_share))
        _check_leads(streams, size, lead, weighted)
    else:
        size = min(size, sum(sizes) // devices * devices)
        if not size:
            raise UserError(f"{sum(sizes)} training records for {devices} devices: give each at least one")
    if shares:
        _check_shares(streams, shares, size)
    return Shape(sizes, size, lead, shares)


def _check_leads(streams: Sequence[Stream], size: int, lead: int, weighted: bool) -> None:
    """Each stream must fill the part of a batch that it leads; without weights, small ones need not lead."""
    needed = lead if weighted else size
    small = min(streams, key=len)
    if len(small) >= needed or (lead < size and not weighted and max(map(len, streams)) >= size):
        return
    raise UserError(
        f"{small.label}: {len(small)} records, fewer than the {needed} of a homogeneous batch; lower "
        "data.sampling.batch_size, leave it out, or lower data.sampling.homogeneous_share (the rest of a "
        "batch is then mixed)"
    )


def _shares(streams: Sequence[Stream], sampling: SamplingOptions) -> tuple[float, ...]:
    """Of each stream: its part of its source's weight, or its size to the power of alpha."""
    sizes = np.array([len(stream) for stream in streams], float)
    if sampling.alpha != 1:
        shares = sizes**sampling.alpha
    else:
        owners = [_owner(stream) for stream in streams]
        totals: dict[str, float] = defaultdict(float)
        for owner, size in zip(owners, sizes, strict=True):
            totals[owner.label] += size
        shares = np.array(
            [(o.weight or 0) * size / totals[o.label] for o, size in zip(owners, sizes, strict=True)]
        )
    return tuple((shares / shares.sum()).tolist())


def _owner(stream: Stream) -> SourceOptions:
    """The one source of a stream, where sources are weighted."""
    if isinstance(stream, MemoryStream):
        return stream.members[0][2]
    assert isinstance(stream, TableStream)
    return stream.source


def _check_shares(streams: Sequence[Stream], shares: Sequence[float], size: int) -> None:
    for stream, share in zip(streams, shares, strict=True):
        if share * size > len(stream):
            raise UserError(
                f"{stream.label}: its weight gives it {share * size:.0f} queries of each batch, and it has "
                f"{len(stream)} records; lower its weight or data.sampling.batch_size"
            )
