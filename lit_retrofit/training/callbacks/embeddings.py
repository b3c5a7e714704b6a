"""What the command ``predict`` leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_retrofit.data.batching import TokenBatch
from lit_retrofit.errors import UserError
from lit_retrofit.training.callbacks.gathering import gather_embeddings


class EmbeddingWriter(Callback):
    """Writes the `predict` command's embeddings: ``embeddings.npy``, a row per text, in the order given.

    Args:
        folder: the run's output folder.
    """

    FILE = "embeddings.npy"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: list[tuple[Tensor, Tensor]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keeps the micro-batch's embeddings."""
        self._found.append((batch.rows.cpu(), outputs.float().cpu()))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes them.

        Raises:
            UserError: the Trainer was told to embed only a part of the texts.
        """
        texts = len(trainer.datamodule.predict_texts)  # type: ignore[attr-defined]
        embeddings = gather_embeddings(self._found, texts, trainer.strategy.root_device)
        if not trainer.is_global_zero:
            return
        if embeddings is None:
            raise UserError(f"only a part of the {texts} texts was embedded; leave out limit_predict_batches")
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / self.FILE, embeddings.numpy(), allow_pickle=False)
