"""The configuration of a run, in its folder, its checkpoints and Weights & Biases."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from lit_retrofit.training.code_version import code_version
from lit_retrofit.training.config_changes import changes

log = logging.getLogger(__name__)


class SaveFitConfig(SaveConfigCallback):
    """Saves the configuration of training alone: the other commands may share its output folder.

    Checkpoints hold it too. A run that goes on tells in one line what it has changed since.
    """

    KEY = "config"

    @cached_property
    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        return plain

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts the configuration into the checkpoint, as plain values."""
        checkpoint[self.KEY] = self._plain

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tells what is not as the checkpoint has it; what may not change is refused by then."""
        if trainer.state.fn != "fit" or not trainer.is_global_zero or self.KEY not in checkpoint:
            return
        changed = changes(checkpoint[self.KEY], self._plain)
        if changed:
            log.warning("the run goes on with other options than its checkpoint: %s", ", ".join(changed))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives W&B, where it is asked for, the whole configuration and the version of the code."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams({"config": self._plain, "code": code_version()})
