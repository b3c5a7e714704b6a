"""Which records, positives and hard negatives make up each batch: seeded, resumable, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from lit_retrofit.data.batching import Draw
from lit_retrofit.data.records import Record
from lit_retrofit.errors import UserError


@dataclass(frozen=True)
class SamplingOptions:
    """How batches are drawn.

    Attributes:
        batch_size: queries per step.
        negatives: hard negatives drawn per query, anew in each epoch.
        neighbours: records brought into a query's batch because their positive is one of its mined negatives.
            They are hard negatives that cost nothing: the batch embeds them anyway.
        cross_lingual: share of queries whose positive is drawn from another language, where the
            record's group has one.
        seed: of the order and of every draw.
    """

    batch_size: int = 64
    negatives: int = 1
    neighbours: int = 0
    cross_lingual: float = 0.0
    seed: int = 0


class DrawSampler(Sampler[list[Draw]]):
    """Yields batches of draws, one epoch per iteration.

    All batches have `batch_size` queries: the rest of an epoch that does not fill one is left out (a
    short batch has fewer negatives and spikes the gradient), a different rest in each epoch. Fewer
    records than `batch_size` make one batch.

    The epoch counts by itself, since trainers do not tell a custom sampler. `state_dict` holds the
    epoch and the position, so that a resumed run sees every remaining batch once.

    Raises:
        UserError: there are no records, or an option is out of range.
    """

    def __init__(self, records: Sequence[Record], options: SamplingOptions) -> None:
        _check(options, len(records))
        self.records = records
        self.options = options
        self._epoch = 0
        self._position = 0
        self._goes_on = True
        self._size = min(options.batch_size, len(records))
        self._by_positive: dict[str, list[int]] = {}
        for i, record in enumerate(records):
            self._by_positive.setdefault(record.positives[0].id, []).append(i)

    def __len__(self) -> int:
        return len(self.records) // self._size

    @property
    def left_out(self) -> int:
        """Records of an epoch that fill no batch."""
        return len(self.records) - len(self) * self._size

    def __iter__(self) -> Iterator[list[Draw]]:
        # A trainer that knows the length never asks for more: an epoch is over without StopIteration.
        if not self._goes_on or self._position == len(self):
            self._epoch += 1
            self._position = 0
        self._goes_on = False
        rng = np.random.default_rng((self.options.seed, self._epoch))
        draws = self._draw_epoch(rng)
        while self._position < len(self):
            start = self._position * self._size
            self._position += 1
            yield draws[start : start + self._size]

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of batches already yielded in it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where `state_dict` was taken."""
        self._epoch, self._position = state["epoch"], state["position"]
        self._goes_on = True

    def _draw_epoch(self, rng: np.random.Generator) -> list[Draw]:
        return [self._draw(self.records[i], rng) for i in self._order(rng)]

    def _order(self, rng: np.random.Generator) -> list[int]:
        """Every record once: at random, each followed by its `neighbours` that have not come yet."""
        order: dict[int, None] = {}
        for i in rng.permutation(len(self.records)).tolist():
            if i not in order:
                order[i] = None
                near = [j for j in self._near(i) if j not in order]
                for j in rng.permutation(len(near))[: self.options.neighbours]:
                    order[near[j]] = None
        return list(order)

    def _near(self, index: int) -> list[int]:
        """Records whose first positive is among this record's hard negatives."""
        if self.options.neighbours == 0:
            return []
        negatives = self.records[index].negatives
        return list(dict.fromkeys(j for n in negatives for j in self._by_positive.get(n.id, ())))

    def _draw(self, record: Record, rng: np.random.Generator) -> Draw:
        own = [d for d in record.positives if d.language == record.language]
        other = [d for d in record.positives if d.language != record.language]
        across = bool(other) and (not own or rng.random() < self.options.cross_lingual)
        pool = other if across else own
        positive = pool[rng.integers(len(pool))]
        count = min(self.options.negatives, len(record.negatives))
        picked = rng.choice(len(record.negatives), count, replace=False) if count else ()
        return Draw(record, positive, tuple(record.negatives[i] for i in picked))


class DrawLoader(StatefulDataLoader):
    """Draws' batches, collated in workers; its state goes on in the middle of an epoch.

    The trainer opens an iterator when it begins and, if it resumes between two epochs, a second one.
    An iterator that is never read must not start workers that draw ahead for it: here an iteration
    begins with its first batch.
    """

    def __init__(self, sampler: DrawSampler, collate: Callable[[Sequence[Draw]], Any], workers: int) -> None:
        super().__init__(_SameDraws(), batch_sampler=sampler, collate_fn=collate, num_workers=workers)

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()


class _SameDraws(Dataset[Draw]):
    """The sampler already yields whole draws: the data set hands them through to the workers."""

    def __getitem__(self, draw: Draw) -> Draw:
        return draw


def _check(options: SamplingOptions, records: int) -> None:
    """Ranges that would otherwise end in a wrong batch, or in a traceback far from here."""
    if records == 0:
        raise UserError("there are no training records to sample from; check data.options.train")
    for name, lowest in (("batch_size", 1), ("negatives", 0), ("neighbours", 0)):
        value = getattr(options, name)
        if value < lowest:
            raise UserError(f"data.sampling.{name} is {value}; it must be at least {lowest}")
    if not 0 <= options.cross_lingual <= 1:
        raise UserError(f"data.sampling.cross_lingual is {options.cross_lingual}; it is a share, 0 to 1")
