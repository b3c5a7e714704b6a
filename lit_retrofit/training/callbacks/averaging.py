"""Exponential moving average of the trained weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.training.sharding import own_part, part_of, whole_on_first

LIVE_KEY = "live_weights"


class AveragedWeights(Callback):
    """Averages the trained weights over the steps; validation, checkpoints and export use the average.

    After each optimizer step, ``average = d * average + (1 - d) * weights`` (Polyak & Juditsky 1992) with
    ``d = min(decay, (1 + n) / (10 + n))`` after n steps: the warm-up of TensorFlow's
    ExponentialMovingAverage, without which a run of a few hundred steps would be measured near its start.

    Lightning's own EMAWeightAveraging does not fit: it copies the whole module, frozen base included, and
    stores it in every checkpoint, and it cannot load a checkpoint that holds the trained weights only.

    Args:
        decay: d in the long run; 0.999 forgets over about a thousand steps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"the decay of averaged weights is {decay}; give 0 to less than 1")
        self.decay = decay
        self._steps = 0
        self._average: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the weights as they are, unless a checkpoint brought an average."""
        # Taken once: where weights are split over devices, the module at times has whole copies of them.
        self._weights = {
            name: weight for name, weight in pl_module.named_parameters() if weight.requires_grad
        }
        self._average = {
            name: part_of(self._average[name], weight) if self._average else weight.detach().clone()
            for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the step's weights in; accumulated batches end in one step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        averages = [own_part(average) for average in self._average.values()]
        weights = [own_part(self._weights[name]) for name in self._average]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average into the model."""
        self._swap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights in training back."""
        self._swap()

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the model."""
        for name, weight in self._weights.items():
            own_part(weight).copy_(own_part(self._average[name]))

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():  # there are none outside of training
            live, average = own_part(weight), own_part(self._average[name])
            held = live.clone()
            live.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps averaged over; the weights are in the checkpoint itself."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        self._steps = state_dict["steps"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The average becomes the checkpoint's model; the weights in training lie beside it."""
        if self._average:
            average = whole_on_first(self._average)
            checkpoint[LIVE_KEY] = {name: checkpoint["state_dict"][name] for name in average}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Both come back. A checkpoint without an average starts one."""
        if LIVE_KEY in checkpoint and trainer.state.fn == "fit":
            self._average = {name: weight.clone() for name, weight in checkpoint["state_dict"].items()}
            trainer.strategy.load_model_state_dict({"state_dict": checkpoint[LIVE_KEY]}, strict=False)
