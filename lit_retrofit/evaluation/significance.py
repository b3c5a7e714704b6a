"""Whether one model's scores are better than another's: intervals and paired tests over queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, false_discovery_control, permutation_test

RESAMPLES = 9999
LEVEL = 0.95
# Resamples drawn at a time: bounds memory to about this many numbers, whatever the number of queries.
_NUMBERS_AT_A_TIME = 4_000_000
Values = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a model is ahead of another on the same queries.

    Attributes:
        mean: of the differences, the mean over tasks of the mean over their queries; above zero where the
            second model is better.
        low: lower end of the 95 % interval of ``mean``.
        high: its upper end.
        p: of the two-sided randomisation test: the probability of a mean this far from zero if the names of
            the two models were exchangeable on every query.
        queries: how many pairs of values stand behind it.
    """

    mean: float
    low: float
    high: float
    p: float
    queries: int


def interval(tasks: Values, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over tasks (percentile method, Efron 1979).

    Queries are drawn anew inside each task; the tasks are taken as they are.

    Args:
        tasks: each task's values, one per query.
        seed: of the resampling.

    Returns:
        The lower and the upper end; both are the mean where no query varies, or a task has only one.
    """
    mean = _mean_of_means(*tasks)
    if all(len(values) < 2 or np.ptp(values) == 0 for values in tasks):
        return float(mean), float(mean)
    found = bootstrap(
        # scipy wants two values at least; a single one, twice, stays the same in every resample
        tuple(np.repeat(values, 2) if len(values) == 1 else values for values in tasks),
        _mean_of_means,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_batch(tasks),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def paired_difference(before: Values, after: Values, *, seed: int = 0) -> Difference:
    """Compares two models on the same queries of one or several tasks.

    The interval is a bootstrap's over the queries' differences, the p-value that of a randomisation test that
    exchanges the two models' values query by query (Fisher; Smucker et al. 2007). A mean over several tasks
    gives each the same weight in both.

    Args:
        before: each task's values of the first model, one per query.
        after: the same of the second model, in the same order.
        seed: of the resampling.
    """
    tasks = [np.asarray(new, float) - np.asarray(old, float) for old, new in zip(before, after, strict=True)]
    low, high = interval(tasks, seed=seed)
    weights = np.concatenate([np.full(len(values), 1 / (len(values) * len(tasks))) for values in tasks])
    differences = np.concatenate(tasks)
    return Difference(
        mean=math.fsum(differences * weights),
        low=low,
        high=high,
        p=_randomisation(differences * weights, seed),
        queries=len(differences),
    )


def adjust(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests made at once, adjusted by Benjamini and Hochberg's rule (1995)."""
    return [float(p) for p in false_discovery_control(p_values)] if p_values else []


def _randomisation(weighted: NDArray[np.float64], seed: int) -> float:
    if len(weighted) < 2 or not weighted.any():  # every exchange is as extreme; scipy wants two values
        return 1.0
    # with one sample scipy flips signs, which is to exchange the two members of a pair
    found = permutation_test(
        (weighted,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_batch([weighted]),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _mean_of_means(*tasks: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    return sum(values.mean(axis=axis) for values in tasks) / len(tasks)


def _batch(tasks: Values) -> int:
    return max(1, _NUMBERS_AT_A_TIME // max(1, sum(len(values) for values in tasks)))
