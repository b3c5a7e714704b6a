"""Hard negatives mined anew beside the training, by a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from lightning import LightningModule, Trainer

from lit_retrofit.data.formats import read_records, write_records
from lit_retrofit.data.records import Record
from lit_retrofit.errors import UserError
from lit_retrofit.mining.pool import Scope
from lit_retrofit.mining.rules import MiningRules
from lit_retrofit.model.loading import STATE_PREFIX, own_options
from lit_retrofit.training.callbacks.background_mining import BackgroundMining
from lit_retrofit.training.callbacks.finding import precision_of
from lit_retrofit.training.callbacks.remine import (
    Remine,
    is_last,
    training_prompts,
    training_records,
)
from lit_retrofit.training.callbacks.whole_steps import ended_a_step
from lit_retrofit.training.checkpoint_io import AtomicCheckpointIO
from lit_retrofit.training.sharding import whole_on_first


class BackgroundRemine(Remine):
    """Mines like `Remine`, but in a process of its own while training goes on, as ANCE does.

    The weights at the end of an epoch mine for the epoch after the next: what epoch N trains on, those at the
    end of epoch N - 2 have found, whatever takes longer, so a run is repeatable. The first two epochs use the
    negatives of the data. Where mining takes longer than an epoch, the next one waits.

    The weights go to ``remined/epoch-N.ckpt`` until they have mined; a run that was killed mines from them
    again. The process is ``lit-retrofit mine``: its summary is that command's, and it prints to
    ``remined/epoch-N.log``. If it fails, the run ends. It never outlives the run. It embeds all queries with
    one prompt, and all documents: sources that differ in theirs are refused.

    Args:
        every_n_epochs: epochs between two minings.
        pool: take negatives from all documents, from those in the query's language, or from those in the
            language of its first positive.
        rules: what a negative must satisfy. A new seed is made of its seed and the epoch.
        token_budget: padded tokens embedded at a time; by default as many as suit the device.
        device: where to mine; auto is the device of training, which then needs memory for both.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        pool: Scope = "all",
        rules: MiningRules = MiningRules(),  # noqa: B008 (frozen)
        token_budget: int | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(every_n_epochs, pool, rules, token_budget)
        self.device = device
        self._snapshots: set[int] = set()
        self._mining: tuple[int, BackgroundMining] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what cannot be mined, and sources that training gives different prompts.

        Raises:
            UserError: all sources are streamed, or their prompts differ.
        """
        super().setup(trainer, pl_module, stage)
        prompts = dict.fromkeys(training_prompts(trainer)) if stage == "fit" else {}
        if len(prompts) > 1:
            first, second, *_ = (
                f"query_prompt {own.query!r}, document_prompt {own.document!r}" for own in prompts
            )
            raise UserError(
                f"BackgroundRemine mines with one prompt of each role, but data.options.train has {first} "
                f"and {second}; take Remine (configs/callbacks/remine.yaml), or give all sources the same"
            )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the negatives of the checkpoint's epoch; those of the next are mined once training begins."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._snapshots = set(checkpoint["callbacks"].get(self.state_key, {}).get("snapshots", ()))

    def state_dict(self) -> dict[str, Any]:
        """The epoch that the negatives in use were mined for, and those whose weights wait or mine."""
        return {**super().state_dict(), "snapshots": sorted(self._snapshots)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the records for the process, and goes on with what a checkpoint left."""
        self._original = self._original or list(training_records(trainer))
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.FOLDER / "records.jsonl"
            # A teacher's scores, of which some may be unknown, are not for the miner.
            plain = (replace(record, positive_scores=(), negative_scores=()) for record in self._original)
            write_records(plain, path, overwrite=True)
        self._enter(trainer.current_epoch, trainer, pl_module, last=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the run where the mining beside it has failed."""
        if not ended_a_step(trainer, batch_idx):
            return
        failed = _error_of(self._mining[1].check) if self._mining is not None else None
        if trainer.strategy.reduce_boolean_decision(failed is not None, all=False):
            _raise_everywhere(failed, trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes what was mined for the next epoch, and begins to mine for the one after it."""
        self._enter(trainer.current_epoch + 1, trainer, pl_module, last=is_last(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends what is under way."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ends what is under way."""
        self._stop()

    def _stop(self) -> None:
        if self._mining is not None:
            self._mining[1].stop()
            self._mining = None

    def _due(self, epoch: int) -> bool:
        return epoch >= 2 and epoch % self.every_n_epochs == 0

    def _enter(self, epoch: int, trainer: Trainer, module: Any, *, last: bool) -> None:
        """Before an epoch: takes what was mined for it, and begins to mine for the next.

        After the last epoch only the weights are kept, for a run that goes on from here with more epochs.
        """
        if self._due(epoch) and self._used != ("epoch", epoch) and not last:
            self._take(epoch, trainer)
        within = last and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if within or not self._due(epoch + 1):
            return
        if epoch + 1 not in self._snapshots:
            self._snapshots.add(epoch + 1)
            self._save(epoch + 1, trainer, module)
        ends = trainer.max_epochs not in (None, -1) and epoch + 1 >= cast(int, trainer.max_epochs)
        if not (last or ends):
            first = trainer.is_global_zero
            _raise_everywhere(_error_of(lambda: self._start(epoch + 1, trainer)) if first else None, trainer)

    def _save(self, epoch: int, trainer: Trainer, module: Any) -> None:
        trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
        own = {name: weight for name, weight in trained.items() if name.startswith(STATE_PREFIX)}
        state = whole_on_first(own)  # weights may be split over the ranks
        if not trainer.is_global_zero:
            return
        path = self._file(trainer, epoch)
        path.unlink(missing_ok=True)  # of a run that took another way
        content = {"state_dict": state, **own_options(module.encoder)}
        AtomicCheckpointIO().save_checkpoint(content, path.with_suffix(".ckpt"))

    def _start(self, epoch: int, trainer: Trainer) -> None:
        """Begins to mine from the epoch's snapshot, unless that is done or under way."""
        path = self._file(trainer, epoch)
        if path.is_file() or (self._mining is not None and self._mining[0] == epoch):
            return
        snapshot = path.with_suffix(".ckpt")
        if not snapshot.is_file():
            raise UserError(
                f"{snapshot}: the weights that mine for epoch {epoch}, which are gone; copy the folder "
                f"{self.FOLDER} of the run that is to go on"
            )
        prompts = training_prompts(trainer)[0]
        options = {
            "model": str(snapshot),
            "query_prompt": prompts.query,
            "document_prompt": prompts.document,
            "data": str(path.with_name("records.jsonl")),
            "output": str(path),
            "pool": self.scope,
            **asdict(replace(self.rules, seed=self.rules.seed + epoch)),
            "min_negatives": 0,
            "precision": precision_of(trainer),
            "device": str(trainer.strategy.root_device) if self.device == "auto" else self.device,
            "token_budget": self.token_budget,
            "overwrite": True,
        }
        self._mining = epoch, BackgroundMining(options, path.with_suffix(".log"))

    def _take(self, epoch: int, trainer: Trainer) -> None:
        """Waits for the epoch's negatives and puts them into the data."""
        told: Any = trainer.strategy.broadcast(
            self._mined(epoch, trainer) if trainer.is_global_zero else None
        )
        if isinstance(told, UserError):  # every rank ends, none waits for another
            raise told
        self._put(epoch, told, trainer)
        self._snapshots.discard(epoch)

    def _mined(self, epoch: int, trainer: Trainer) -> list[Record] | UserError:
        path = self._file(trainer, epoch)
        try:
            self._start(epoch, trainer)
            if self._mining is not None:
                self._mining[1].wait()
                self._stop()
            records, _ = read_records(path)
        except UserError as error:
            return error
        path.with_suffix(".ckpt").unlink(missing_ok=True)
        return records


def _error_of(work: Callable[[], None]) -> UserError | None:
    try:
        work()
    except UserError as error:
        return error
    return None


def _raise_everywhere(error: UserError | None, trainer: Trainer) -> None:
    """Ends every rank where the first has an error: none waits for another."""
    told: Any = trainer.strategy.broadcast(error)
    if told is not None:
        raise told
