"""What happens around the steps: retrieval measures, throughput, the training card, predictions."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_retrofit.data.batching import RetrievalBatch, TokenBatch
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import evaluate_embeddings, means_by_kind

MONITOR = "val/nDCG@10"


class RetrievalValidation(Callback):
    """Collects embeddings and logs nDCG@10, Recall@100 and MRR@10 by kind of task.

    Keys: ``val/monolingual/nDCG@10``, ``val/cross_lingual/…`` (where languages are known, else
    ``val/all/…``), and ``val/nDCG@10``, the mean over the kinds, to be monitored. ``test/…`` likewise.
    """

    def __init__(self) -> None:
        self._found: list[list[tuple[Tensor, Tensor]]] = [[], []]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts afresh."""
        self._found = [[], []]

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keeps the micro-batch's embeddings."""
        self._found[dataloader_idx].append((batch.rows.cpu(), outputs.float().cpu()))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs. The Trainer's sanity check and its fast_dev_run see only parts of the set."""
        partly = trainer.sanity_checking or trainer.fast_dev_run  # type: ignore[attr-defined]
        if self._found[0] and not partly:
            self._log("val", trainer.datamodule.validation_set, pl_module)  # type: ignore[attr-defined]

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs."""
        self._log("test", trainer.datamodule.test_set, pl_module)  # type: ignore[attr-defined]

    def _log(self, stage: str, retrieval_set: RetrievalSet, pl_module: LightningModule) -> None:
        queries, corpus = (_in_order(found) for found in self._found)
        if (len(queries), len(corpus)) != (len(retrieval_set.queries), len(retrieval_set.corpus)):
            raise UserError(
                f"only a part of {retrieval_set.name} was embedded, and retrieval cannot be measured on it; "
                f"leave out --trainer.limit_{stage}_batches, or set it to 0 to measure nothing"
            )
        results = evaluate_embeddings(retrieval_set, queries, corpus)
        means = means_by_kind((result.task.kind, result.scores) for result in results)
        for kind, scores in means.items():
            for measure, value in scores.items():
                pl_module.log(f"{stage}/{kind}/{measure}", value, batch_size=1)
        overall = sum(scores["nDCG@10"] for scores in means.values()) / len(means)
        pl_module.log(f"{stage}/nDCG@10", overall, prog_bar=True, batch_size=1)


def _in_order(found: list[tuple[Tensor, Tensor]]) -> Tensor:
    rows = torch.cat([rows for rows, _ in found])
    return torch.cat([embeddings for _, embeddings in found])[rows.argsort()]


class StepMonitor(Callback):
    """Logs queries and tokens per second, the padding share and the peak memory of each step."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        """Stops it. On a GPU the optimizer step has waited for the gradients, so the time is the step's."""
        seconds = time.perf_counter() - self._started
        tokens, padded = batch.tokens, batch.padded_tokens
        figures = {
            "train/queries_per_second": len(batch.positives) / seconds,
            "train/tokens_per_second": tokens / seconds,
            "train/padding_share": 1 - tokens / padded,
            "train/peak_memory_gb": peak_memory(pl_module.device) / 1e9,
        }
        pl_module.log_dict(figures, batch_size=1)


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of the allocator on CUDA, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class TrainingCard(Callback):
    """Writes ``training.json``: what was trained, on what, how long, and how it went.

    Args:
        folder: the run's output folder.
    """

    FILE = "training.json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; the card of an earlier run no longer holds."""
        self._started = time.time()
        (self.folder / self.FILE).unlink(missing_ok=True)
        if trainer.logger is not None:
            trainer.logger.log_hyperparams(_options(pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the card."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        card = {
            "format": 1,
            "started": self._started,
            "seconds": time.time() - self._started,
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "precision": str(trainer.precision),
            **_options(pl_module),
            "sampling": asdict(data.sampling),
            "data": data.card(),
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        }
        with new_text_file(self.folder / self.FILE, overwrite=True) as file:
            json.dump(card, file, indent=1, ensure_ascii=False)


def _options(module: Any) -> dict[str, Any]:
    return {"encoder": asdict(module.encoder.options), **module.options}


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
        """Writes them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / self.FILE, _in_order(self._found).numpy(), allow_pickle=False)
