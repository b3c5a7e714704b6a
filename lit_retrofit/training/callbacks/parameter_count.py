"""How large the model is, in one line."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary


class ParameterCount(ModelSummary):
    """Stands in for Lightning's summary, whose table of two rows knows neither FLOPs nor bf16 here."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line."""
        if trainer.is_global_zero:
            total = sum(parameter.numel() for parameter in pl_module.parameters())
            trained = sum(
                parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad
            )
            print(f"{total:,} parameters, {trained:,} of them trained", flush=True)
