"""What a run comes to, for Weights & Biases: scores by language, records trained on, the model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_retrofit.data.records import Record
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import TaskResult
from lit_retrofit.training.callbacks.card import TrainingCard
from lit_retrofit.training.callbacks.validation import MONITOR, RetrievalValidation
from lit_retrofit.training.callbacks.wandb_tables import log_rows, wandb_loggers

_LONGEST = 1000  # characters of a text in a table, which is there to be read
_SEED = 0


class WandbOutcome(Callback):
    """At the end of ``fit``, gives Weights & Biases what curves do not show; nothing where it is off.

    - the table ``val/tasks``: every language task's scores in the best and in the last validation;
    - the table ``train/records``: a sample of the training records in memory, with the hard negatives that
      they were last trained on; of those that have some, where any has;
    - the artifact ``model-…``: the best checkpoint, else the last, in the form of a run folder.

    A run that is interrupted gives these when it is resumed and ends.

    Args:
        folder: the run's output folder.
        model: log the artifact.
        records: how many are shown; 0 shows none.
    """

    def __init__(self, folder: Path, model: bool = True, records: int = 50) -> None:
        if records < 0:
            raise UserError(f"wandb_records is {records}; 0 shows no training record, more shows some")
        self.folder = folder
        self.model = model
        self.records = records
        self._best: list[dict[str, Any]] = []
        self._best_score = -float("inf")
        self._last: list[dict[str, Any]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the scores of the last validation, and of the best."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        (validation,) = (one for one in callbacks if isinstance(one, RetrievalValidation))
        if not validation.results:  # of other ranks, and of the Trainer's sanity check
            return
        self._last = _task_rows("last", trainer.global_step, validation.results)
        score = float(trainer.callback_metrics[MONITOR])
        if score > self._best_score:
            self._best = [{**row, "validation": "best"} for row in self._last]
            self._best_score = score

    def state_dict(self) -> dict[str, Any]:
        """The best validation so far: a resumed run may not find a better one."""
        return {"best": self._best, "score": self._best_score} if self._best else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        self._best, self._best_score = state_dict["best"], state_dict["score"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs tables and model."""
        if not trainer.is_global_zero or not wandb_loggers(trainer):
            return
        log_rows(trainer, "val/tasks", [*self._best, *self._last])
        records = trainer.datamodule.train_records  # type: ignore[attr-defined]
        log_rows(trainer, "train/records", _record_rows(records, self.records))
        if self.model:
            self._log_model(trainer)

    def _log_model(self, trainer: Trainer) -> None:
        """With names by which ``lit-retrofit evaluate`` and others take the artifact's folder as a model."""
        import wandb  # slow to import

        checkpoint = _checkpoint(trainer)
        if checkpoint is None:
            return
        name, path = checkpoint
        paths = {f"checkpoints/{name}.ckpt": path}
        paths |= {file: self.folder / file for file in ("config.yaml", TrainingCard.FILE)}
        for logger in wandb_loggers(trainer):
            artifact = wandb.Artifact(f"model-{logger.experiment.id}", "model")
            for inside, file in paths.items():
                if file.is_dir():  # a checkpoint in parts
                    artifact.add_dir(str(file), name=inside, policy="immutable")
                elif file.is_file():
                    # Uploaded from where it is: W&B would keep a copy of each model outside of the run.
                    artifact.add_file(str(file), name=inside, policy="immutable")
            logger.experiment.log_artifact(artifact)


def _checkpoint(trainer: Trainer) -> tuple[str, Path] | None:
    """The best checkpoint where one callback monitors a measure, else the last one saved."""
    saved: dict[str, Path] = {}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and Path(callback.best_model_path or "/none").exists():
            saved["best" if callback.monitor else "last"] = Path(callback.best_model_path)
    return next(((name, saved[name]) for name in ("best", "last") if name in saved), None)


def _task_rows(validation: str, step: int, results: Sequence[TaskResult]) -> list[dict[str, Any]]:
    return [
        {
            "validation": validation,
            "step": step,
            "kind": result.task.kind,
            "query_language": result.task.query_language,
            "corpus_language": result.task.corpus_language,
            "queries": len(result.task.query_indices),
            "documents": len(result.task.document_indices),
            **result.scores,
        }
        for result in results
    ]


def _record_rows(records: Sequence[Record], count: int) -> list[dict[str, Any]]:
    records = [record for record in records if record.negatives] or records
    chosen = random.Random(_SEED).sample(range(len(records)), min(count, len(records)))
    return [_record_row(records[at]) for at in sorted(chosen)]


def _record_row(record: Record) -> dict[str, Any]:
    return {
        "record_id": record.id,
        "language": record.language,
        "source": record.source,
        "query": _excerpt(record.query),
        "positive": _excerpt(record.positives[0].text),
        "hard_negatives": [_excerpt(negative.text) for negative in record.negatives],
        "positive_score": record.positive_scores[0] if record.positive_scores else None,
        "negative_scores": list(record.negative_scores),
    }


def _excerpt(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
