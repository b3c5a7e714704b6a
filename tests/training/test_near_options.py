"""Options that there are not: the message names the config and the option that was meant."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from lit_retrofit.errors import UserError
from lit_retrofit.training.near_options import near_options


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    for name in ("loss.temperature", "loss.margin", "optimizer.learning_rate", "output"):
        parser.add_argument(f"--{name}", type=float)
    return parser


def told(parser: ArgumentParser, *words: str) -> str:
    with pytest.raises(UserError) as raised, near_options(parser, words):
        parser.parse_args(list(words))
    return str(raised.value)


@pytest.mark.parametrize(("word", "advice"), [
    ("--loss.temprature=1", "no such option: --loss.temprature; did you mean --loss.temperature?"),
    ("--optimizer.lr=1", "no such option: --optimizer.lr; did you mean --optimizer.learning_rate?"),
    ("--optimiser.learning_rate=1", "did you mean --optimizer.learning_rate?"),
    ("--loss.zzz=1", "no such option: --loss.zzz; loss has margin, temperature"),
    ("--outptu=1", "did you mean --output?"),
    ("--zzz=1", "--help names those that there are"),
])  # fmt: skip
def test_on_the_command_line(parser, word, advice) -> None:
    assert told(parser, word).endswith(advice)


def test_in_one_of_several_configs(parser, tmp_path) -> None:
    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    right.write_text("loss:\n  margin: 1\n")
    wrong.write_text("loss:\n  temperatur: 1\n")
    for words in (["--config", str(right), "--config", str(wrong)], [f"--config={wrong}"]):
        said = told(parser, *words)
        assert said == f"{wrong}: no such option: 'loss.temperatur'; did you mean loss.temperature?"


def test_other_mistakes_are_left_as_they_are(parser) -> None:
    from argparse import ArgumentError

    for words in (["--output", "no number"], ["stray"]):
        with pytest.raises(ArgumentError), near_options(parser, words):
            parser.parse_args(words)
