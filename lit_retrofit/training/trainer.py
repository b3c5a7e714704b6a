"""Lightning's Trainer, on whose command line 1 is one batch, whatever was imported before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning import Trainer


class RetrofitTrainer(Trainer):
    """The trainer: devices, precision, how long to train, when to validate, callbacks.

    It reads a whole number as a count of batches, and only others as a share of the data.
    jsonargparse tries the members of a union in their order. Lightning writes ``Optional[Union[int,
    float]]``, and `typing` keeps one object for equal unions, with the order of whoever wrote them first:
    where sentence-transformers, for one, was imported before Lightning, ``float`` comes first, and 1
    becomes 1.0, all batches. ``int | float`` is made anew each time; but a default of None would have
    jsonargparse wrap it in an Optional, and so the defaults here are the 1.0 that None stands for.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = 1.0,
        limit_val_batches: int | float | None = 1.0,
        limit_test_batches: int | float | None = 1.0,
        limit_predict_batches: int | float | None = 1.0,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = 1.0,
        **others: Any,
    ) -> None:
        """Makes it, with all of Lightning's settings.

        Args:
            limit_train_batches: how many batches of an epoch to train on: their number, or a share as 0.5.
            limit_val_batches: how many batches to validate on: their number, or a share.
            limit_test_batches: how many batches to test on: their number, or a share.
            limit_predict_batches: how many batches to predict: their number, or a share.
            overfit_batches: train on these alone, again and again: their number, or a share.
            val_check_interval: how often to validate: after so many batches, after a share of an epoch, or
                after a time, as "00:12:00:00" (days to seconds).
            others: as Lightning's.
        """
        super().__init__(
            limit_train_batches=_none_for_all(limit_train_batches),
            limit_val_batches=_none_for_all(limit_val_batches),
            limit_test_batches=_none_for_all(limit_test_batches),
            limit_predict_batches=_none_for_all(limit_predict_batches),
            overfit_batches=overfit_batches,
            val_check_interval=_none_for_all(val_check_interval),
            **others,
        )


def _none_for_all(value: Any) -> Any:
    """Lightning takes None for 1.0, too, and prints a line about each 1.0."""
    return None if isinstance(value, float) and value == 1 else value
