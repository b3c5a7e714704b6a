"""From a mixture to collated batches, in workers or without, and where training is in its data."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lit_retrofit.data.batching import TokenBatch
from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.sampling import Draw
from lit_retrofit.errors import UserError

log = logging.getLogger(__name__)

Collate = Callable[[Sequence[Draw]], Any]


class DrawLoader:
    """A mixture's batches, collated in workers; its state goes on in the middle of an epoch.

    It is no `torch.utils.data.DataLoader`, though one does the work: a trainer would give a DataLoader
    another sampler when it runs on several devices, and this already yields the device's part of each batch.
    Nor is it torchdata's StatefulDataLoader, whose state (0.11) is a snapshot of each worker of one rank and
    fits no other number of either. Here epoch and position say which batch comes next, with any number.

    Epochs count by themselves, since trainers do not tell. The state is the epoch and position of the
    batch that comes next. It is the same on all devices and for any number of workers.

    The trainer opens an iterator when it begins and, if it resumes between two epochs, a second one. An
    iteration begins with its first batch: one that is never read draws nothing.

    Args:
        mixture: what is drawn from.
        collate: makes a batch of its draws.
        workers: how many processes do it; 0 is none but this one.
        report: whether to log what is skipped.
        taken: how many batches of an epoch the trainer takes, where it may be fewer than there are. Asked
            no sooner than an iteration begins: a trainer counts them once it has the loader.

    Attributes:
        skipped: rows that were skipped so far, by reason; of the first device's view, which is everybody's.
    """

    def __init__(
        self,
        mixture: Mixture,
        collate: Collate,
        workers: int,
        report: bool = True,
        taken: Callable[[], float] | None = None,
    ) -> None:
        self.mixture = mixture
        self.skipped: Counter[str] = Counter()
        self._batches = _Batches(mixture, collate)
        self._workers = workers
        self._report = report
        self._taken = taken
        self._skipped_places: set[str] = set()
        self._epoch = 0
        self._position = 0
        self._goes_on = True
        self._renewed = False

    def __len__(self) -> int:
        """Batches of an epoch, as many as an iteration from its beginning yields."""
        return len(self.mixture)

    def __iter__(self) -> Iterator[Any]:
        if not self._goes_on:
            self._epoch, self._position = self._epoch + 1, 0
        self._epoch, self._position = self._next()
        self._goes_on = False
        while self._position < len(self):
            self._renewed = False
            for made in self._made():
                self._note(made.skips)
                if made.fault is not None:
                    raise UserError(made.fault)
                self._position += 1
                yield made.batch
                if self._renewed:
                    break

    def renew(self) -> None:
        """Makes the batches that come next anew: their records have changed, and workers may be ahead."""
        self._renewed = True

    def _next(self) -> tuple[int, int]:
        """Epoch and position of the batch that comes next: the beginning of an epoch after another's end.

        A trainer that knows how many it takes never asks for more: an epoch is over without StopIteration.
        """
        taken = len(self) if self._taken is None else min(self._taken(), len(self))
        return (self._epoch, self._position) if self._position < taken else (self._epoch + 1, 0)

    def _made(self) -> DataLoader[_Made]:
        keys = [(self._epoch, position) for position in range(self._position, len(self))]
        # A generator of its own: the global one, which dropout draws from, must not depend on iterators.
        generator = torch.Generator().manual_seed(0)
        return DataLoader(
            self._batches, batch_size=None, sampler=keys, num_workers=self._workers, collate_fn=_as_it_is,
            generator=generator,
        )  # fmt: skip

    def _note(self, skips: Sequence[tuple[str, str]]) -> None:
        """Counts each skipped row once, and tells the first for each reason."""
        for place, reason in skips:
            if place not in self._skipped_places:
                self._skipped_places.add(place)
                self.skipped[reason] += 1
                if self.skipped[reason] == 1 and self._report:
                    log.warning("%s: %s; skipped, and further such rows too", place, reason)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position of the batch that comes next, and what it is a batch of.

        At an epoch's end it is the next epoch's first batch: a run that goes on may take more or fewer
        batches of an epoch, and does not know where the end was.
        """
        epoch, position = self._next()
        return {"epoch": epoch, "position": position, "of": self.mixture.identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken.

        Raises:
            UserError: the state is of other data or other options, where its position means other records.
        """
        if not {"epoch", "position", "of"} <= state_dict.keys():
            raise UserError("the checkpoint's data state is of another version; start the run anew")
        now, then = self.mixture.identity(), state_dict["of"]
        for name, value in now.items():
            before = then.get(name, value)  # checkpoints of an earlier version name fewer
            if before != value:
                old, new = _differing(before, value)
                raise UserError(
                    f"the checkpoint cannot go on with this data: {name} was {old!s:.150} and is now "
                    f"{new!s:.150}; give the config.yaml of its run with --config, or start anew"
                )
        self._epoch, self._position = state_dict["epoch"], state_dict["position"]
        self._goes_on = True


def _differing(then: Any, now: Any) -> tuple[Any, Any]:
    """Of two lists of many sources, those that are not the same in both; other values as they are."""
    if not (isinstance(then, list) and isinstance(now, list)):
        return then, now
    old, new = [each for each in then if each not in now], [each for each in now if each not in then]
    return (old, new) if old or new else (then, now)


@dataclass(frozen=True)
class _Made:
    """A batch, or what the user did wrong: an exception from a worker would come with its traceback."""

    batch: Any
    fault: str | None
    skips: Sequence[tuple[str, str]]


class _Batches(Dataset[_Made]):
    """Draws and collates the batch of an epoch and position."""

    def __init__(self, mixture: Mixture, collate: Collate) -> None:
        self._mixture = mixture
        self._collate = collate

    def __getitem__(self, key: tuple[int, int]) -> _Made:
        batch, fault = None, None
        try:
            batch = self._collate(self._mixture.batch(*key))
        except UserError as error:
            fault = str(error)
        return _Made(batch, fault, self._mixture.take_skips())


def _as_it_is(made: Any) -> Any:
    return made


class MicroBatchLoader:
    """A device's part of the micro-batches of texts to embed; `rows` tells where each embedding goes.

    All devices get equally many, since they have to run in step: where they do not come out even,
    micro-batches are halved. Where that is not enough (fewer texts than devices), one is given twice. No
    DataLoader, for the same reason as `DrawLoader`.

    Args:
        batches: of all devices together.
        devices: how many share them.
        device: which of them this is, from 0.
    """

    def __init__(self, batches: Sequence[TokenBatch], devices: int = 1, device: int = 0) -> None:
        self._batches = _even(list(batches), devices)[device::devices]

    def __len__(self) -> int:
        """Micro-batches of this device, and of every other."""
        return len(self._batches)

    def __iter__(self) -> Iterator[TokenBatch]:
        return iter(self._batches)


def _even(batches: list[TokenBatch], devices: int) -> list[TokenBatch]:
    """As many batches as a multiple of the devices, by halving the largest ones."""
    while batches and len(batches) % devices:
        largest = max(range(len(batches)), key=lambda i: len(batches[i].rows))
        batch = batches[largest]
        half = len(batch.rows) // 2
        if half:
            batches[largest : largest + 1] = [_part(batch, slice(half)), _part(batch, slice(half, None))]
        else:
            batches.append(batches[0])
    return batches


def _part(batch: TokenBatch, rows: slice) -> TokenBatch:
    return TokenBatch(batch.input_ids[rows], batch.attention_mask[rows], batch.rows[rows], batch.role)
