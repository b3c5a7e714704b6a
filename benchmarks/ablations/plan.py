"""An ablation file, read and checked: one question, and the arms that answer it."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablations.selecting import Cut, Selection
from lit_retrofit.errors import UserError
from lit_retrofit.sweeps.checking import fit_parser
from lit_retrofit.sweeps.space import words_of
from lit_retrofit.training.shipped_configs import with_shipped_config

_KEYS = {"question", "paper", "base", "baseline", "queries", "unseen", "settings", "prepare", "arms"}
_ARM_KEYS = {"name", "settings", "configs", "after"}
_COMMANDS = ("mine", "clean", "synthesize")
_SET_BY_RUNNER = (
    "output", "overwrite", "wandb", "seed_everything", "data.sampling.seed", "trainer.max_steps",
    "trainer.max_epochs",
)  # fmt: skip
GIVEN = ("train", "all", "model")
BATCH_SIZE = "data.sampling.batch_size"


@dataclass(frozen=True)
class Arm:
    """One answer to try.

    Attributes:
        name: in tables and plots.
        settings: options of `fit`, with dots, on top of those of the whole file.
        configs: config files stacked on the base.
        after: words of `merge`, if what is measured is the run merged with its base.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    configs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """A file of configs/ablations.

    Attributes:
        path: of the file.
        question: in one sentence.
        paper: what the retrofit paper found.
        base: the recipe that the settings change.
        baseline: the arm that the others are compared with.
        queries: seen by every arm in training; None for those of the command line.
        unseen: languages that no arm trains on; their tasks get a column of their own.
        settings: options of `fit` for every arm.
        prepare: data to make: a name, and the words of a command or a selection of records.
        arms: in the file's order.
    """

    path: Path
    question: str
    paper: str
    base: str
    baseline: str
    queries: int | None
    unseen: tuple[str, ...]
    settings: dict[str, Any]
    prepare: dict[str, tuple[str, ...] | Selection | Cut]
    arms: tuple[Arm, ...]

    def settings_of(self, arm: Arm) -> dict[str, Any]:
        """The options of `fit` for an arm."""
        return self.settings | arm.settings


def read_ablation(path: Path) -> Ablation:
    """Reads a file.

    Raises:
        UserError: it is missing, no YAML, or a field is missing, unknown or of the wrong kind.
    """
    content = _mapping(path, "the file", _read(path))
    _check_keys(f"{path}", content, _KEYS)
    arms = tuple(_arm(path, number, given) for number, given in enumerate(_list(path, content, "arms")))
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: field 'arms' has a name twice; names tell arms apart")
    baseline = content.get("baseline")
    if baseline not in names:
        raise UserError(f"{path}: field 'baseline' is {baseline!r}; name one of the arms, {', '.join(names)}")
    queries = content.get("queries")
    if queries is not None and (not isinstance(queries, int) or queries < 1):
        raise UserError(f"{path}: field 'queries' is {queries!r}; give a number of queries, 1 or more")
    prepare = _mapping(path, "field 'prepare'", content.get("prepare", {}))
    ablation = Ablation(
        path=path,
        question=_text(path, content, "question"),
        paper=_text(path, content, "paper"),
        base=_text(path, content, "base"),
        baseline=baseline,
        queries=queries,
        unseen=tuple(map(str, content.get("unseen", ()))),
        settings=_settings(f"{path}: field 'settings'", content.get("settings", {})),
        prepare={str(name): _prepare(path, str(name), given) for name, given in prepare.items()},
        arms=arms,
    )
    _check_names(ablation)
    return ablation


def check_settings(ablation: Ablation, known: Mapping[str, str | Path]) -> None:
    """Parses the settings of every arm as `fit` does.

    Args:
        ablation: what is to run.
        known: what stands for each name in braces.

    Raises:
        UserError: an option that does not exist or does not take its value.
    """
    where = f"{ablation.path}: field 'base'"
    try:
        parser = fit_parser(["--config", with_shipped_config(ablation.base)])
        for arm in ablation.arms:
            where = f"{ablation.path}: arm '{arm.name}'"
            parser.parse_args(["fit", *fit_words(ablation, arm, known)])
    except ArgumentError as error:
        text = " ".join(str(error).split()).replace("unrecognized arguments:", "no such option of fit:")
        raise UserError(f"{where}: {text[:300]}") from None


def fit_words(ablation: Ablation, arm: Arm, known: Mapping[str, str | Path]) -> list[str]:
    """What stands behind `fit` for an arm, but for seed, steps and output."""
    stacked = [
        word for file in (ablation.base, *arm.configs) for word in ("--config", with_shipped_config(file))
    ]
    settings = {name: _written(value) for name, value in ablation.settings_of(arm).items()}
    return [*stacked, *(fill(word, known) for word in words_of(settings))]


def _written(value: Any) -> Any:
    """Lists and objects as YAML on one line, which is how options take them."""
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def fill(word: str, known: Mapping[str, str | Path]) -> str:
    """Puts paths where names stand in braces."""
    for name, path in known.items():
        word = word.replace("{" + name + "}", str(path))
    return word


def names_in(value: Any) -> list[str]:
    """The names in braces that something speaks of."""
    return re.findall(r"\{(\w+)\}", repr(value))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such ablation; see configs/ablations/")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no valid YAML ({' '.join(str(error).split())[:200]})") from None


def _arm(path: Path, number: int, given: Any) -> Arm:
    where = f"arms[{number}]"
    content = _mapping(path, where, given)
    _check_keys(f"{path}: {where}", content, _ARM_KEYS)
    after = content.get("after", [])
    if after and (not isinstance(after, list) or after[0] != "merge"):
        raise UserError(f"{path}: {where}: field 'after' is {after!r}; write the words of merge, [merge, …]")
    return Arm(
        name=_text(path, content, "name"),
        settings=_settings(f"{path}: {where}: field 'settings'", content.get("settings", {})),
        configs=tuple(map(str, content.get("configs", ()))),
        after=tuple(map(str, after)),
    )


def _settings(where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UserError(f"{where} is no object; write option: value, with dots in the option")
    taken = [name for name in given if name in _SET_BY_RUNNER]
    if taken:
        raise UserError(f"{where}: '{taken[0]}' is set by the runner; leave it out")
    return {str(name): value for name, value in given.items()}


def _prepare(path: Path, name: str, given: Any) -> tuple[str, ...] | Selection | Cut:
    where = f"{path}: prepare '{name}'"
    if name in (*GIVEN, "output", "run"):
        raise UserError(f"{where}: the runner gives this name; take another")
    if isinstance(given, dict):
        try:
            return Cut(**given) if "layers" in given else Selection(**given)
        except TypeError as error:
            raise UserError(f"{where}: {error}; docs/results.md lists what a selection may say") from None
    if not isinstance(given, list) or not given or given[0] not in _COMMANDS:
        raise UserError(f"{where} is neither a selection nor the words of {', '.join(_COMMANDS)}")
    return tuple(map(str, given))


def _check_names(ablation: Ablation) -> None:
    """Every name in braces is given, or made by something above."""
    known = [*GIVEN]
    for name, how in ablation.prepare.items():
        _check_braces(ablation.path, f"prepare '{name}'", repr(how), known)
        known.append(name)
    parts = [("settings", ablation.settings), *((f"arm '{arm.name}'", arm.settings) for arm in ablation.arms)]
    for where, value in parts:
        _check_braces(ablation.path, where, repr(value), known)


def _check_braces(path: Path, where: str, text: str, known: list[str]) -> None:
    for name in names_in(text):
        if name not in known:
            raise UserError(f"{path}: {where}: '{{{name}}}' is not prepared; there are {', '.join(known)}")


def _check_keys(where: str, content: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(content.keys() - known)
    if unknown:
        raise UserError(f"{where}: field '{unknown[0]}' is unknown; there are {', '.join(sorted(known))}")


def _mapping(path: Path, where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UserError(f"{path}: {where} is no object of named fields")
    return given


def _list(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(content.get(name), list) or not content[name]:
        raise UserError(f"{path}: field '{name}' must be a list with something in it")
    return content[name]


def _text(path: Path, content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{path}: field '{name}' is {value!r}; write a text")
    return value.strip()
