"""Where a run that goes on from a checkpoint begins: Lightning's loops are put where the data is.

Lightning guesses from its counters in which hook a checkpoint was taken. Where validations are not at the
ends of epochs, where steps end the run, or where it goes on a second time, it guesses wrong: batches were
trained twice or left out, and validations too (seen with 2.6). `DrawLoader` knows which batch comes next.
"""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.loops import evaluation_loop, fit_loop, training_epoch_loop

from lit_retrofit.data.loader import DrawLoader


def place_loops(trainer: Trainer) -> None:
    """Lets training begin with the batch that comes next; first with what the checkpoint came before.

    That is the validation, if one was due after the batch and had not been, and the end of the epoch. To be
    called when training starts: the checkpoint's state is loaded, and the loops have not begun.
    """
    loader = trainer.train_dataloader
    if trainer.ckpt_path is None or not isinstance(loader, DrawLoader):
        return
    state = loader.state_dict()
    epoch, position = state["epoch"], state["position"]
    epochs: Any = trainer.fit_loop.epoch_progress  # Any: Lightning's types leave half of the counters out
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    right_after_batch = batches.total.completed < batches.total.processed
    if position == 0 and epochs.current.processed == epoch and not right_after_batch:
        _count(epochs.total, epoch, epoch)
        _count(epochs.current, epoch, epoch)
        trainer.fit_loop._restart_stage = fit_loop.RestartStage.NONE
        return
    begun = epoch + 1 if position else epoch
    _count(epochs.total, begun, begun - 1)
    _count(epochs.current, begun, begun - 1)
    trainer.fit_loop._restart_stage = fit_loop.RestartStage.RESTARTED_MID_EPOCH
    _place_in_epoch(trainer, position, right_after_batch)


def begin_epoch(trainer: Trainer) -> None:
    """Ends what `place_loops` began: from here on, nothing is special. To be called when an epoch starts."""
    trainer.fit_loop.epoch_loop.restarting = False


def _place_in_epoch(trainer: Trainer, position: int, right_after_batch: bool) -> None:
    """After `position` batches of the epoch; 0 is after all of them."""
    loop, stages = trainer.fit_loop.epoch_loop, training_epoch_loop.RestartStage
    count = position or int(trainer.num_training_batches)
    _count(loop.batch_progress.current, count, count)
    _count(loop.batch_progress.total, loop.batch_progress.total.ready, loop.batch_progress.total.ready)
    loop.batch_progress.is_last_batch = position == 0
    loop.restarting = True
    loop._batches_that_stepped = trainer.global_step
    fetcher = trainer.fit_loop._data_fetcher
    if right_after_batch and fetcher is not None and loop._should_check_val_fx(fetcher):
        loop._restart_stage = stages.RESTARTED_ON_LAST
        loop.val_loop.batch_progress.reset()
        loop.val_loop._restart_stage = evaluation_loop.RestartStage.RESTARTED_MID_EVALUATION
        loop._batches_that_stepped -= 1  # counted after the validation
    elif position == 0:
        loop._restart_stage = stages.RESTARTED_ON_LAST
        loop.val_loop._has_run = True  # or the loop would not be over yet
    else:
        loop._restart_stage = stages.NONE
        loop._batches_that_stepped -= 0 if loop._should_accumulate() else 1  # counted as the loop is reset


def _count(counted: Any, begun: int, ended: int) -> None:
    counted.ready = counted.started = begun
    counted.processed = counted.completed = ended
