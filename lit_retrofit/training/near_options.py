"""An option that there is not: told in one line, with those it may have been meant for."""

from __future__ import annotations

import re
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError

_OF_A_CONFIG = re.compile(r"(?:does not accept option|^Option) '([^']+)'")
_OF_THE_COMMAND = re.compile(r"unrecognized arguments: --([^\s=]+)")


@contextmanager
def near_options(parser: ArgumentParser, words: Sequence[str]) -> Iterator[None]:
    """Names the config that has an unknown option, and known options that are near to it.

    Args:
        parser: knows the options.
        words: the command line, which names the configs.

    Raises:
        UserError: the parser was given an option that it does not know.
    """
    try:
        yield
    except ArgumentError as error:
        if found := _OF_A_CONFIG.search(error.message):
            option = found[1]
            place = next((f"{path}: " for path in _configs(words) if _has(path, option)), "")
            raise UserError(f"{place}no such option: '{option}'; {_advice(option, parser, '')}") from error
        if found := _OF_THE_COMMAND.search(error.message):
            raise UserError(f"no such option: --{found[1]}; {_advice(found[1], parser, '--')}") from error
        raise


def _advice(option: str, parser: ArgumentParser, dashes: str) -> str:
    known = {
        word[2:]
        for action in parser._actions
        for word in action.option_strings
        if word.startswith("--") and not word.endswith("+")
    }
    group, dot, name = option.rpartition(".")
    # Those beside it first: the whole names are alike by what they begin with.
    beside = [other.removeprefix(group + dot) for other in sorted(known) if other.rpartition(".")[0] == group]
    near = _nearest(name, beside)
    if near:
        return f"did you mean {dashes}{group}{dot}{near}?"
    if group and beside:
        return f"{group} has {', '.join(beside)}"
    whole = _nearest(option, sorted(known))
    return f"did you mean {dashes}{whole}?" if whole else "--help names those that there are"


def _nearest(name: str, known: Sequence[str]) -> str | None:
    """The option that a name is misspelt of, or has the initials of, as lr of learning_rate."""
    initials = (one for one in known if "_" in one and "".join(part[:1] for part in one.split("_")) == name)
    return next(initials, None) or next(iter(get_close_matches(name, known, n=1)), None)


def _configs(words: Sequence[str]) -> Iterator[Path]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c"):
            yield Path(value if equals else following)


def _has(path: Path, option: str) -> bool:
    """Whether a config sets an option; a file that cannot be read is not the parser's complaint here."""
    import yaml

    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    for name in option.split("."):
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True
