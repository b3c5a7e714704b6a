"""Exponential moving average of the trained weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_retrofit.errors import UserError

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the weights as they are, unless a checkpoint brought an average."""
        if not self._average:
            self._average = {name: weight.detach().clone() for name, weight in _trained(pl_module).items()}
        self._average = {name: weight.to(pl_module.device) for name, weight in self._average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the step's weights in; accumulated batches end in one step."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        weights = _trained(pl_module)
        torch._foreach_lerp_([self._average[name] for name in weights], list(weights.values()), 1 - decay)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average into the model."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights in training back."""
        self._swap(pl_module)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the model."""
        for name, weight in _trained(pl_module).items():
            weight.copy_(self._average[name])

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        for name, weight in _trained(pl_module).items():
            if name in self._average:  # there is none outside of training
                held = weight.clone()
                weight.copy_(self._average[name])
                self._average[name].copy_(held)

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
            checkpoint[LIVE_KEY] = {name: checkpoint["state_dict"][name] for name in self._average}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._average}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Both come back. A checkpoint without an average starts one."""
        if LIVE_KEY in checkpoint and trainer.state.fn == "fit":
            self._average = {name: weight.clone() for name, weight in checkpoint["state_dict"].items()}
            pl_module.load_state_dict(checkpoint[LIVE_KEY], strict=False)


def _trained(module: LightningModule) -> dict[str, Tensor]:
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
