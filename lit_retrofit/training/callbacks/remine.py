"""Hard negatives mined anew with the model in training, between two epochs or two steps."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

from lightning import Callback, LightningModule, Trainer

from lit_retrofit.data.formats import read_records, write_records
from lit_retrofit.data.records import Record
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.mining.find import with_negatives
from lit_retrofit.mining.pool import Pool, Prompts, Scope, build_pool
from lit_retrofit.mining.rules import MiningRules
from lit_retrofit.training.callbacks.finding import find_with_ranks
from lit_retrofit.training.callbacks.whole_steps import ended_a_step
from lit_retrofit.training.sharding import gathered

log = logging.getLogger(__name__)

Unit = Literal["epoch", "step"]


class Remine(Callback):
    """Replaces the training records' negatives by those that the model finds hard now.

    As in ANCE (Xiong et al., arXiv 2007.00808), but between epochs or steps rather than beside them: the
    weights at the end of an epoch mine the negatives of the next, so a run is repeatable. The documents
    searched are the positives and negatives that the records came with, whatever was mined since. The rules
    are those of ``lit-retrofit mine``. Order and number of the records stay as they are. Texts get the
    prompts that training gives them: a query its source's, and the documents it is compared with its
    source's too.

    Where records have a teacher's scores, training goes on with these alone: what is mined anew has none and
    counts as unknown (``train/unknown_scores`` of the terms that learn from them). The scores in the file are
    those of the mining.

    The records with their new negatives go to ``remined/epoch-N.jsonl`` in the run folder, the counts to
    ``remined/epoch-N.summary.json`` beside it; N is the epoch they are for, from 0. By steps the files are
    ``step-N…``, of the step after which they were mined. A checkpoint names its file, from which a resumed
    run takes the same negatives.

    Args:
        every_n_epochs: epochs between two minings.
        pool: take negatives from all documents, from those in the query's language, or from those in the
            language of its first positive.
        rules: what a negative must satisfy. A new seed is made of its seed and the epoch or step.
        token_budget: padded tokens embedded at a time; by default as many as suit the device.
        every_n_steps: optimizer steps between two minings, instead of epochs. Needs
            ``data.sampling.neighbours`` to be 0: those order an epoch by the negatives that it begins with.
    """

    FOLDER = "remined"

    def __init__(
        self,
        every_n_epochs: int = 1,
        pool: Scope = "all",
        rules: MiningRules = MiningRules(),  # noqa: B008 (frozen)
        token_budget: int | None = None,
        every_n_steps: int | None = None,
    ) -> None:
        for name, every in (("every_n_epochs", every_n_epochs), ("every_n_steps", every_n_steps)):
            if every is not None and every < 1:
                raise UserError(f"{name} of Remine is {every}; it must be at least 1")
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.scope: Scope = pool
        self.rules = rules
        self.token_budget = token_budget
        self._unit: Unit = "epoch" if every_n_steps is None else "step"
        self._used: tuple[Unit, int] = ("epoch", 0)  # when the negatives in use were mined for; or after
        self._original: list[Record] = []
        self._pool: Pool | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what cannot be mined, or not within an epoch.

        Raises:
            UserError: all sources are streamed, or neighbours share batches.
        """
        if stage != "fit":
            return
        self._check_held(trainer)
        sampling = trainer.datamodule.sampling  # type: ignore[attr-defined]
        if self._unit == "step" and sampling.neighbours:
            raise UserError(
                "every_n_steps of Remine changes negatives within an epoch, which data.sampling.neighbours "
                f"({sampling.neighbours}) has ordered by them; set that to 0, or mine by every_n_epochs"
            )

    def _check_held(self, trainer: Trainer) -> None:
        """Only records in memory are mined for."""
        sources = trainer.datamodule.sources  # type: ignore[attr-defined]
        streamed = [source.label for source, part in sources if isinstance(part, TableStream)]
        if streamed and len(streamed) == len(sources):
            raise UserError(
                f"{type(self).__name__} has no records to mine for: all sources of data.options.train are "
                "streamed; set stream to false for one, or leave the callback out"
            )
        if streamed and trainer.is_global_zero:
            log.warning(
                "%s keeps the negatives of what is streamed as they are: %s",
                type(self).__name__, ", ".join(streamed),
            )  # fmt: skip

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the checkpoint's negatives from their file, before any batch is drawn.

        Raises:
            UserError: the file is gone, or was mined for other records.
        """
        state = checkpoint["callbacks"].get(self.state_key, {})
        self._used = ("step", state["step"]) if "step" in state else ("epoch", state.get("epoch", 0))
        if self._used == ("epoch", 0) or trainer.state.fn != "fit":
            return
        path = self._file(trainer, self._used[1], self._used[0])
        if not path.is_file():
            raise UserError(
                f"{path}: the checkpoint's run trained on the negatives in this file, which is gone; "
                "copy it from the folder of the run that is to go on"
            )
        self._original = list(training_records(trainer))
        mined, _ = read_records(path)
        if [record.id for record in mined] != [record.id for record in self._original]:
            raise UserError(
                f"{path}: mined for other records than those of data.options.train; give the same"
            )
        self._use(mined, trainer)

    def state_dict(self) -> dict[str, Any]:
        """What the negatives in use were mined for (or after, by steps); epoch 0 are those of the data."""
        unit, number = self._used
        return {unit: number}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mines now if the run goes on from a checkpoint that was taken where mining was due, before it."""
        self._original = self._original or list(training_records(trainer))
        now = trainer.current_epoch if self._unit == "epoch" else trainer.global_step
        self._mine_for(now, trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Mines after a step, if there will be another one. What is saved after it names its negatives."""
        if self._unit == "step" and ended_a_step(trainer, batch_idx) and not _is_last_step(trainer):
            self._mine_for(trainer.global_step, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mines for the next epoch, if there will be one."""
        if self._unit == "epoch" and not is_last(trainer):
            self._mine_for(trainer.current_epoch + 1, trainer, pl_module)

    def _file(self, trainer: Trainer, number: int, unit: Unit = "epoch") -> Path:
        return Path(trainer.default_root_dir) / self.FOLDER / f"{unit}-{number}.jsonl"

    def _use(self, mined: list[Record], trainer: Trainer) -> None:
        pairs = zip(mined, self._original, strict=True)
        trainer.datamodule.replace_records(  # type: ignore[attr-defined]
            [with_teacher(record, given) for record, given in pairs]
        )

    def _put(self, number: int, mined: list[Record], trainer: Trainer) -> int:
        """Puts records with new negatives into the data; returns how many have others than before."""
        pairs = zip(training_records(trainer), mined, strict=True)
        changed = sum([d.id for d in a.negatives] != [d.id for d in b.negatives] for a, b in pairs)
        self._use(mined, trainer)
        self._used = self._unit, number
        figures = {"remined/changed_share": changed / len(mined)}
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
        log.info(
            "%s %d: the negatives of %d of %d records changed, %d have none",
            self._unit, number, changed, len(mined), sum(not record.negatives for record in mined),
        )  # fmt: skip
        return changed

    def _mine_for(self, number: int, trainer: Trainer, module: Any) -> None:
        """Mines for an epoch, or after a step, if that is due and not done."""
        every = self.every_n_steps or self.every_n_epochs
        if not number or number % every or (self._unit, number) == self._used:
            return
        started = time.time()
        prompts = training_prompts(trainer)
        self._pool = self._pool or build_pool(self._original, scope=self.scope, prompts=prompts)
        rules = replace(self.rules, seed=self.rules.seed + number)
        with gathered(module):  # ranks embed different numbers of micro-batches
            found = find_with_ranks(self._pool, rules, module.encoder, self.token_budget, trainer)
        mined = [
            with_negatives(record, found[0][at], self._pool)
            for record, at in zip(self._original, self._pool.record_queries, strict=True)
        ]
        changed = self._put(number, mined, trainer)
        summary = {
            "format": 1,
            "epoch": number if self._unit == "epoch" else trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": time.time() - started,
            "records": len(mined),
            "changed": changed,
            "without": sum(not record.negatives for record in mined),
            "negatives": sum(len(record.negatives) for record in mined),
            "documents": len(self._pool.documents),
            "rules": asdict(rules),
            "pool": self.scope,
            "candidates": found[1],
        }
        if trainer.is_global_zero:
            path = self._file(trainer, number, self._unit)
            write_records(mined, path, overwrite=True)
            with new_text_file(path.with_suffix(".summary.json"), overwrite=True) as file:
                json.dump(summary, file, indent=1, ensure_ascii=False)


def is_last(trainer: Trainer) -> bool:
    """Whether no epoch comes after the one that ends."""
    ends = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= cast(int, trainer.max_epochs)
    return bool(ends or trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step)


def _is_last_step(trainer: Trainer) -> bool:
    """Whether no step comes after the one that has ended."""
    ends = trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
    return bool(ends or (trainer.is_last_batch and is_last(trainer)))


def training_records(trainer: Trainer) -> Sequence[Record]:
    """Those in memory, with the negatives in use."""
    return trainer.datamodule.train_records  # type: ignore[attr-defined]


def training_prompts(trainer: Trainer) -> list[Prompts]:
    """What training puts before the texts of each of `training_records`."""
    module: Any = trainer.lightning_module
    query, document = (module.tokenizer.of(role).prompts[role] for role in ("query", "document"))
    return [
        Prompts(
            query if source.query_prompt is None else source.query_prompt,
            document if source.document_prompt is None else source.document_prompt,
        )
        for source, part in trainer.datamodule.sources  # type: ignore[attr-defined]
        if not isinstance(part, TableStream)
        for _ in part
    ]


def with_teacher(mined: Record, given: Record) -> Record:
    """The record with the teacher's scores in place of the miner's, which are the student's own.

    A mined negative has the score of the given one with the same text, and NaN, which is unknown, where there
    is none; no scores at all where the given record has none.
    """
    known = dict(zip((d.text for d in given.negatives), given.negative_scores, strict=False))
    scores = tuple(known.get(document.text, math.nan) for document in mined.negatives)
    scored = given.positive_scores or given.negative_scores
    return replace(mined, positive_scores=given.positive_scores, negative_scores=scores if scored else ())
