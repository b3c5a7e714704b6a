"""What the console script itself does: which words it completes, what it hides, what it says at the end."""

from __future__ import annotations

import logging
import warnings
from types import SimpleNamespace

import pytest

from lit_retrofit import cli
from lit_retrofit.data import catalogue
from lit_retrofit.training.shipped_configs import with_shipped_config

HIDDEN = [
    "LightningCLI's args parameter is intended to run from within Python",
    "'set_vital' is deprecated",
    "`is_gradient_checkpointing` is deprecated",
    "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)` instead.",
    "Precision bf16-mixed is not supported by the model summary.  Estimated model size",
    "Experiment logs directory runs/my fit/ exists and is not empty. Previous log files",
    "Checkpoint directory /runs/fit/checkpoints exists and is not empty.",
]
SHOWN = [
    "The number of training batches (4) is smaller than the logging interval",
    "`ModelCheckpoint(monitor='val/nDCG@10')` could not find the monitored key",
    "Precision 8 loses digits",
    "a gradient is not a number",
]


@pytest.mark.parametrize(("message", "hidden"), [(m, True) for m in HIDDEN] + [(m, False) for m in SHOWN])
def test_warnings_to_developers_are_hidden_and_no_others(message: str, hidden: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cli._quiet()
        warnings.warn(message, stacklevel=1)
    assert bool(caught) != hidden


@pytest.mark.parametrize(("message", "level", "hidden"), [
    ("💡 Tip: For seamless cloud logging and experiment tracking, try installing [litlogger]", "INFO", True),
    ("`weights_only` was not set, defaulting to `False`.", "INFO", True),
    ("TPU available: False, using: 0 TPU cores", "INFO", True),
    ("GPU available: True (cuda), used: True", "INFO", False),
    ("💡 Tip: For seamless cloud logging", "ERROR", False),
])  # fmt: skip
def test_advertisements_are_hidden_and_no_errors(message: str, level: str, hidden: bool) -> None:
    cli._quiet()
    for name in cli._LOGS:
        record = logging.LogRecord(name, getattr(logging, level), __file__, 1, message, None, None)
        assert bool(logging.getLogger(name).filter(record)) != hidden


def test_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch) -> None:
    """Where the package is installed they are in it, in a checkout beside it."""
    monkeypatch.chdir(tmp_path)
    name = "configs/recipes/quickstart.yaml"
    shipped = str(catalogue.config_folder() / "recipes" / "quickstart.yaml")
    assert with_shipped_config(name) == shipped
    assert with_shipped_config(f"--config={name}") == f"--config={shipped}"
    assert with_shipped_config("configs/none.yaml") == "configs/none.yaml"
    (tmp_path / "configs" / "recipes").mkdir(parents=True)
    (tmp_path / name).write_text("")
    assert with_shipped_config(name) == name


def one(first: str, *, other: int = 0) -> None:
    """Does it.

    Args:
        first: a word.
        other: a number.
    """


def several(firsts: list[str], *, other: int = 0) -> None:
    """Does it."""


def interrupted(first: str) -> None:
    """Takes long."""
    raise KeyboardInterrupt


@pytest.fixture
def command(monkeypatch):
    def install(function, **settings) -> None:
        given = cli.Command("", f"module:{function.__name__}", **settings)
        monkeypatch.setitem(cli.COMMANDS, "tried", given)
        # as `from __future__ import annotations` leaves them, the lists are told apart by their text
        monkeypatch.setattr(
            cli, "import_module", lambda name: SimpleNamespace(**{function.__name__: function})
        )

    return install


@pytest.mark.parametrize(("function", "leading", "said"), [
    (one, "first", "The first word is --first"), (several, "firsts", "The first words up to an option are"),
])  # fmt: skip
def test_help_says_which_word_needs_no_flag(command, capsys, function, leading, said) -> None:
    command(function, leading=leading)
    with pytest.raises(SystemExit):
        cli.main(["tried", "--help"])
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("resumes", [False, True])
def test_an_interrupted_command_says_whether_it_goes_on(command, capsys, resumes: bool) -> None:
    command(interrupted, leading="first", resumes=resumes)
    assert cli.main(["tried", "word"]) == 130
    assert ("the same command goes on" in capsys.readouterr().err) == resumes


def test_an_unknown_option_has_a_near_match(command, capsys) -> None:
    command(one, leading="first")
    assert cli.main(["tried", "word", "--othre", "3"]) == 2
    assert "did you mean --other?" in capsys.readouterr().err
