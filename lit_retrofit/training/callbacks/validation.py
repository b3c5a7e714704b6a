"""Retrieval measures during training and of `validate` and `test`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_retrofit.data.batching import TokenBatch
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import (
    MEASURES,
    TaskResult,
    evaluate_embeddings,
    mean_over_kinds,
    means_by_kind,
)
from lit_retrofit.evaluation.tasks import split_tasks
from lit_retrofit.training.callbacks.gathering import gather_embeddings
from lit_retrofit.training.callbacks.step_monitor import StepMonitor

VALIDATION = "val/"
MONITOR = "val/nDCG@10"


class RetrievalValidation(Callback):
    """Collects embeddings and logs nDCG@10, Recall@100 and MRR@10 by kind of task.

    Keys: ``val/monolingual/nDCG@10``, ``val/cross_lingual/…`` (where languages are known, else
    ``val/all/…``), and ``val/nDCG@10``, the mean over the kinds, to be monitored. ``test/…`` likewise.

    With several ranks each embeds its share of the texts; the first measures once, and all log its numbers.

    Attributes:
        results: of the last validation or test, by language; none on other ranks than the first.
    """

    def __init__(self) -> None:
        self.results: tuple[TaskResult, ...] = ()
        self._found: list[list[tuple[Tensor, Tensor]]] = [[], []]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks what other callbacks monitor, rather than stopping at the end of the first epoch.

        Raises:
            UserError: a callback monitors what will not be there.
        """
        known = {*pl_module.figures, *StepMonitor.FIGURES}  # type: ignore[misc]
        retrieval_set = trainer.datamodule.validation_set  # type: ignore[attr-defined]
        if retrieval_set is not None:
            known |= _keys(retrieval_set)
        unsure = _others_may_log(trainer, pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            key = getattr(callback, "monitor", None)
            # What Lightning adds: the counts for its checkpoints, and what the LearningRateMonitor logs.
            counts = ("epoch", "step") if isinstance(callback, ModelCheckpoint) else ()
            if key is None or key in known or key in counts or key.startswith("lr-"):
                continue
            if key.startswith(VALIDATION) and retrieval_set is None:
                raise UserError(
                    f"a callback monitors {key}, and there is no validation data; give "
                    "data.options.validation or data.options.validation_share, or leave the callback out"
                )
            if key.startswith(VALIDATION) or not unsure:
                raise UserError(
                    f"a callback monitors {key}, which is not measured; there are {', '.join(sorted(known))}"
                )

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
        if not (trainer.sanity_checking or trainer.fast_dev_run):  # type: ignore[attr-defined]
            self._log("val", trainer.datamodule.validation_set, trainer, pl_module)  # type: ignore[attr-defined]

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures and logs."""
        self._log("test", trainer.datamodule.test_set, trainer, pl_module)  # type: ignore[attr-defined]

    def _log(
        self, stage: str, retrieval_set: RetrievalSet, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        device = trainer.strategy.root_device
        sizes = (len(retrieval_set.queries), len(retrieval_set.corpus))
        queries, corpus = (
            gather_embeddings(found, size, device) for found, size in zip(self._found, sizes, strict=True)
        )
        self._found = [[], []]
        found = _measure(stage, retrieval_set, queries, corpus) if trainer.is_global_zero else ()
        self.results = () if isinstance(found, UserError) else found
        told = found if isinstance(found, UserError) else _values(stage, found)
        values: Any = trainer.strategy.broadcast(told)
        if isinstance(values, UserError):  # every rank ends, none waits for another
            raise values
        for key, value in values.items():  # equal on all ranks; `sync_dist` says so to Lightning
            shown = key == f"{stage}/nDCG@10"
            pl_module.log(key, value, prog_bar=shown, batch_size=1, sync_dist=True)


def _measure(
    stage: str, retrieval_set: RetrievalSet, queries: Tensor | None, corpus: Tensor | None
) -> tuple[TaskResult, ...] | UserError:
    """The results by language, or what is wrong."""
    if queries is None or corpus is None:
        return UserError(
            f"only a part of {retrieval_set.name} was embedded, and retrieval cannot be measured on it; "
            f"leave out --trainer.limit_{stage}_batches, or set it to 0 to measure nothing"
        )
    try:
        return tuple(evaluate_embeddings(retrieval_set, queries, corpus))
    except UserError as error:
        return error


def _values(stage: str, results: Sequence[TaskResult]) -> dict[str, float]:
    """What is to be logged, by key."""
    if not results:
        return {}
    means = means_by_kind((result.task.kind, result.scores) for result in results)
    values = {f"{stage}/{kind}/{name}": value for kind, of in means.items() for name, value in of.items()}
    values[f"{stage}/nDCG@10"] = mean_over_kinds(means)
    return values


def _keys(retrieval_set: RetrievalSet) -> set[str]:
    kinds = {task.kind for task in split_tasks(retrieval_set).tasks}
    return {MONITOR, *(f"val/{kind}/{measure}" for kind in kinds for measure in MEASURES)}


def _others_may_log(trainer: Trainer, module: LightningModule) -> bool:
    """Whether a callback or the module is neither Lightning's nor this project's: it may log anything."""
    parts = (module, *trainer.callbacks)  # type: ignore[attr-defined]
    return any(type(part).__module__.split(".")[0] not in ("lightning", "lit_retrofit") for part in parts)
