"""Random numbers that a resumed run draws again as the uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class StepSeeds(Callback):
    """Seeds every step anew: what it draws depends on the run's seed, its number and its rank alone.

    Restoring the generators' states from a checkpoint would not do: between the checkpoint and the next
    step lie draws that a resumed run makes in other numbers (each data iterator takes one, each
    validation has two iterators). So dropout is the same after any interruption, with any number of
    workers, and the checkpoint holds a single number.
    """

    def __init__(self) -> None:
        self._seed: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new run goes by the seed that it was started with, a resumed one by its own from then."""
        if self._seed is None:
            self._seed = torch.initial_seed()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seeds python's, numpy's and torch's generators, on the GPU too."""
        assert self._seed is not None
        batches = trainer.fit_loop.epoch_loop.total_batch_idx
        numbers = np.random.SeedSequence((self._seed, batches, trainer.global_rank)).generate_state(4)
        low, high, *others = (int(number) for number in numbers)
        torch.manual_seed(low << 32 | high)
        np.random.seed(others[0])
        random.seed(others[1])

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {} if self._seed is None else {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the seed of the run that goes on."""
        self._seed = state_dict["seed"]
