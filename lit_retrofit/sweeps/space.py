"""A sweep file: W&B's format, read and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from lit_retrofit.errors import UserError
from lit_retrofit.training.shipped_configs import with_shipped_config

MethodName = Literal["grid", "random", "bayes"]
_KEYS = {
    "name", "description", "project", "entity", "program", "method", "metric", "parameters", "command",
    "run_cap", "early_terminate",
}  # fmt: skip
_RANGES = ("uniform", "log_uniform_values", "int_uniform", "q_uniform")
_DISTRIBUTIONS = ("constant", "categorical", "categorical_w_probabilities", *_RANGES)
_PARAMETER_KEYS = {"value", "values", "probabilities", "min", "max", "q", "distribution"}


@dataclass(frozen=True)
class Parameter:
    """What a trial may set an option to.

    Attributes:
        name: of the option, with dots.
        values: to choose from; empty for a range.
        probabilities: of the values, where they are not alike.
        distribution: categorical, or that of the range.
        low: of the range.
        high: likewise, included.
        step: of a q_uniform range.
    """

    name: str
    values: tuple[Any, ...] = ()
    probabilities: tuple[float, ...] | None = None
    distribution: str = "categorical"
    low: float = 0.0
    high: float = 0.0
    step: float = 1.0

    @property
    def examples(self) -> tuple[Any, ...]:
        """Every value, or both ends of the range: what is tried before the first trial."""
        if self.values:
            return self.values
        whole = self.distribution == "int_uniform"
        return tuple(int(end) if whole else float(end) for end in (self.low, self.high))


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        path: of the file.
        name: shown, and the group of its runs in W&B.
        method: grid, random or bayes.
        metric: what trials are compared by.
        maximize: whether more of it is better.
        parameters: in the file's order.
        words: of `lit-retrofit fit`, without the parameters.
        run_cap: at most so many trials; None for no limit.
        notes: parts of the file that are of no effect here.
        project: of W&B, for the trials' runs; None where the file names none.
        entity: of W&B, likewise.
    """

    path: Path
    name: str
    method: MethodName
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    words: tuple[str, ...]
    run_cap: int | None
    notes: tuple[str, ...] = ()
    project: str | None = None
    entity: str | None = None


def read_sweep(path: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        UserError: it is missing, no YAML, or a field is missing, unknown or of the wrong kind.
    """
    content = _read_yaml(path)
    unknown = sorted(content.keys() - _KEYS)
    if unknown:
        raise UserError(f"{path}: field '{unknown[0]}' is unknown; there are {', '.join(sorted(_KEYS))}")
    method = content.get("method")
    if method not in get_args(MethodName):
        raise UserError(f"{path}: field 'method' is {method!r}; give grid, random or bayes")
    metric, maximize = _metric(path, content.get("metric"))
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UserError(f"{path}: field 'parameters' names none; write option: {{values: [...]}} for each")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise UserError(f"{path}: field 'run_cap' is {cap!r}; give a number of trials")
    return Sweep(
        path=path,
        name=str(content.get("name") or path.stem),
        method=cast(MethodName, method),
        metric=metric,
        maximize=maximize,
        parameters=tuple(_parameter(path, str(name), value) for name, value in parameters.items()),
        words=_words(path, content),
        run_cap=cap,
        notes=("early_terminate is W&B's: here every trial runs to its end",)
        if "early_terminate" in content
        else (),
        project=_name(path, content, "project"),
        entity=_name(path, content, "entity"),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such sweep file; see configs/sweeps/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no valid YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a sweep; it needs method, metric, parameters and command")
    return content


def _metric(path: Path, metric: Any) -> tuple[str, bool]:
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise UserError(f"{path}: field 'metric' needs a name and a goal; for instance val/nDCG@10, maximize")
    goal = metric.get("goal", "minimize")
    if goal not in ("maximize", "minimize"):
        raise UserError(f"{path}: field 'metric.goal' is {goal!r}; give maximize or minimize")
    return metric["name"], goal == "maximize"


def _name(path: Path, content: dict[str, Any], field: str) -> str | None:
    name = content.get(field)
    if name is not None and not (isinstance(name, str) and name):
        raise UserError(f"{path}: field '{field}' is {name!r}; give a name of W&B's, or leave it out")
    return name


def _words(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The command between `fit` and ${args}, with W&B's macros replaced."""
    usual = "[${env}, lit-retrofit, fit, --config, FILE, ${args}]"
    command = content.get("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise UserError(f"{path}: field 'command' must be a list of words, {usual}")
    program = str(content.get("program", ""))
    words = [program if word == "${program}" else word for word in command if word != "${env}"]
    if words[:2] != ["lit-retrofit", "fit"]:
        raise UserError(f"{path}: field 'command' does not run lit-retrofit fit; write {usual}")
    if words.count("${args}") != 1:
        raise UserError(f"{path}: field 'command' needs ${{args}} once, for the parameters; write {usual}")
    other = [word for word in words if word.startswith("${") and word != "${args}"]
    if other:
        raise UserError(f"{path}: field 'command' has {other[0]}, which is not known here; write {usual}")
    return tuple(with_shipped_config(word) for word in words[2:] if word != "${args}")


def _parameter(path: Path, name: str, given: Any) -> Parameter:
    where = f"{path}: parameter '{name}'"
    if not isinstance(given, dict) or "parameters" in given:
        raise UserError(f"{where} is no object with value, values, or min and max; nest nothing, write dots")
    unknown = sorted(given.keys() - _PARAMETER_KEYS)
    if unknown:
        raise UserError(f"{where} has the unknown field '{unknown[0]}'; there are {sorted(_PARAMETER_KEYS)}")
    distribution = given.get("distribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        raise UserError(f"{where} has distribution {distribution!r}; here are {', '.join(_DISTRIBUTIONS)}")
    if "value" in given:
        return Parameter(name, (_plain(where, given["value"]),))
    if "values" in given:
        return _categorical(where, name, given)
    return _range(where, name, given, distribution)


def _plain(where: str, value: Any) -> Any:
    """YAML reads 1e-5 as a word; W&B would hand it on as one, and so would the option take it."""
    if isinstance(value, str) and _is_number(value):
        raise UserError(f"{where} has the word '{value}'; write the number as 1.0e-5, or quote nothing")
    return value


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _categorical(where: str, name: str, given: dict[str, Any]) -> Parameter:
    values = given["values"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: field 'values' must be a list with something in it")
    shares = given.get("probabilities")
    if shares is not None:
        fits = isinstance(shares, list) and len(shares) == len(values)
        numbers = [_finite(share) for share in shares] if fits else [None]
        if not all(n is not None and n >= 0 for n in numbers) or not math.isclose(sum(shares), 1):
            raise UserError(f"{where}: field 'probabilities' needs a share for each value, 1 together")
        shares = tuple(float(share) for share in shares)
    return Parameter(name, tuple(_plain(where, value) for value in values), shares)


def _range(where: str, name: str, given: dict[str, Any], distribution: str | None) -> Parameter:
    low, high = (_finite(given.get(end)) for end in ("min", "max"))
    if low is None or high is None or not low < high:
        raise UserError(
            f"{where} has min {given.get('min')!r} and max {given.get('max')!r}; give values, or two "
            "numbers, the smaller as min"
        )
    if distribution is None:
        distribution = (
            "int_uniform" if isinstance(given["min"], int) and isinstance(given["max"], int) else "uniform"
        )
    if distribution not in _RANGES:
        raise UserError(f"{where} has min and max; its distribution is one of {', '.join(_RANGES)}")
    if distribution == "log_uniform_values" and low <= 0:
        raise UserError(f"{where} has min {low}; on a logarithmic scale it must be above 0")
    step = _finite(given.get("q", 1.0))
    if step is None or step <= 0:
        raise UserError(f"{where} has q {given['q']!r}; give a number above 0")
    return Parameter(name, (), None, distribution, low, high, step)


def _finite(value: Any) -> float | None:
    """The number that a field holds; None where it is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def words_of(values: dict[str, Any]) -> list[str]:
    """A trial's parameters as options, written as W&B's agent writes ${args}."""
    return [f"--{name}={value}" for name, value in values.items()]


def names_of(parameters: Sequence[Parameter]) -> list[str]:
    """The names, without those that never change."""
    return [parameter.name for parameter in parameters if len(parameter.values) != 1]
