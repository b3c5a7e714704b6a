"""Which parameters the trials get: all combinations, random ones, or Optuna's choice after each result."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from lit_retrofit.errors import UserError
from lit_retrofit.sweeps.space import MethodName, Parameter, Sweep

Values = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A trial that has ended.

    Attributes:
        values: its parameters.
        score: of the metric; None where it failed.
    """

    values: Values
    score: float | None


class Sampler(Protocol):
    """Names the next trial. The same file, seed and outcomes give the same trials."""

    def next(self, ended: Sequence[Outcome]) -> Values | None:
        """The parameters of the next trial, after those that have ended; None where there is none."""


def make_sampler(sweep: Sweep, method: MethodName, max_runs: int | None, seed: int) -> Sampler:
    """The sampler of a method.

    Args:
        sweep: the search space.
        method: grid, random, or bayes (Optuna's tree-structured Parzen estimator).
        max_runs: at most so many trials.
        seed: of random and bayes.

    Raises:
        UserError: a range in a grid, an endless search without a limit, or Optuna is not installed.
    """
    limits = [limit for limit in (sweep.run_cap, max_runs) if limit is not None]
    limit = min(limits) if limits else None
    if method == "grid":
        return Listed(grid(sweep)[:limit])
    if limit is None:
        raise UserError(
            f"{sweep.path}: the method {method} never ends; give run_cap in the file, or --max_runs"
        )
    if method == "random":
        return Listed(draw(sweep, limit, seed))
    if find_spec("optuna") is None:
        raise UserError("the method bayes needs the package optuna; pip install 'lit-retrofit[sweeps]'")
    return OptunaSampler(sweep, limit, seed)


class Listed:
    """Trials that are known beforehand.

    Args:
        trials: in their order.
    """

    def __init__(self, trials: Sequence[Values]) -> None:
        self.trials = list(trials)

    def next(self, ended: Sequence[Outcome]) -> Values | None:
        """The first that has not ended."""
        return self.trials[len(ended)] if len(ended) < len(self.trials) else None


def grid(sweep: Sweep) -> list[Values]:
    """Every combination; the last parameter of the file changes fastest."""
    for parameter in sweep.parameters:
        if not parameter.values:
            raise UserError(
                f"{sweep.path}: parameter '{parameter.name}' is a range, which no grid goes through; give "
                "its values, or take the method random"
            )
    names = [parameter.name for parameter in sweep.parameters]
    combinations = itertools.product(*(parameter.values for parameter in sweep.parameters))
    return [dict(zip(names, values, strict=True)) for values in combinations]


def draw(sweep: Sweep, count: int, seed: int) -> list[Values]:
    """Random combinations; the first ones stay the same if more are asked for."""
    generator = random.Random(seed)
    return [{p.name: _draw(p, generator) for p in sweep.parameters} for _ in range(count)]


def _draw(parameter: Parameter, generator: random.Random) -> Any:
    if parameter.values:
        return generator.choices(parameter.values, parameter.probabilities)[0]
    low, high = parameter.low, parameter.high
    if parameter.distribution == "int_uniform":
        return generator.randint(int(low), int(high))
    if parameter.distribution == "log_uniform_values":
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    value = generator.uniform(low, high)
    return round(value / parameter.step) * parameter.step if parameter.distribution == "q_uniform" else value


class OptunaSampler:
    """Optuna's TPE (Bergstra et al. 2011), told of every trial that has ended.

    Its state is made anew for each trial from the outcomes so far, so a sweep that was stopped goes on as one
    that was not. Values are chosen by their place in the file's list: they may be lists themselves.

    Args:
        sweep: the search space.
        limit: trials in all.
        seed: of the first trial; each further one adds 1.
    """

    def __init__(self, sweep: Sweep, limit: int, seed: int) -> None:
        self._sweep, self._limit, self._seed = sweep, limit, seed

    def next(self, ended: Sequence[Outcome]) -> Values | None:
        """What Optuna suggests."""
        import optuna

        if len(ended) >= self._limit:
            return None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction="maximize" if self._sweep.maximize else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self._seed + len(ended)),
        )
        distributions = {p.name: _distribution(p) for p in self._sweep.parameters}
        for outcome in ended:
            study.add_trial(
                optuna.trial.create_trial(
                    params={p.name: _to_optuna(p, outcome.values[p.name]) for p in self._sweep.parameters},
                    distributions=distributions,
                    value=outcome.score,
                    state=optuna.trial.TrialState.FAIL
                    if outcome.score is None
                    else optuna.trial.TrialState.COMPLETE,
                )
            )
        asked = study.ask(distributions)
        return {p.name: _from_optuna(p, asked.params[p.name]) for p in self._sweep.parameters}


def _distribution(parameter: Parameter) -> Any:
    from optuna import distributions

    if parameter.values:
        return distributions.CategoricalDistribution(range(len(parameter.values)))
    low, high = parameter.low, parameter.high
    if parameter.distribution == "int_uniform":
        return distributions.IntDistribution(int(low), int(high))
    if parameter.distribution == "q_uniform":
        return distributions.FloatDistribution(low, high, step=parameter.step)
    return distributions.FloatDistribution(low, high, log=parameter.distribution == "log_uniform_values")


def _to_optuna(parameter: Parameter, value: Any) -> Any:
    return parameter.values.index(value) if parameter.values else value


def _from_optuna(parameter: Parameter, value: Any) -> Any:
    return parameter.values[value] if parameter.values else value
