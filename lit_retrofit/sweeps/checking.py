"""Refuses a sweep that cannot run, before its first trial."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.errors import UserError
from lit_retrofit.sweeps.space import Sweep, words_of
from lit_retrofit.training.cli import RetrofitCLI
from lit_retrofit.training.lit_module import Retriever

_UNKNOWN = "unrecognized arguments: --"
_OWN = ("output", "overwrite", "ckpt_path", "wandb", "config")


class ParsingCLI(RetrofitCLI):
    """Parses the words of `fit`, and does nothing with them."""

    def before_instantiate_classes(self) -> None:
        """The output folder is not looked at."""

    def instantiate_classes(self) -> None:
        """Nothing is made."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def check_sweep(sweep: Sweep) -> None:
    """Parses `fit` with every value that a parameter may have (both ends, of a range), one at a time.

    Raises:
        UserError: an option that does not exist or does not take a value, a config file that is missing, an
            option that the sweep itself sets, or one without which no trial can be ranked.
    """
    taken = [p.name for p in sweep.parameters if p.name in _OWN]
    taken += [word.split("=")[0][2:] for word in sweep.words if word.split("=")[0][2:] in _OWN[:3]]
    if taken:
        raise UserError(f"{sweep.path}: '{taken[0]}' is the sweep's own to set, for each trial; leave it out")
    first = {parameter.name: parameter.examples[0] for parameter in sweep.parameters}
    base = f"{sweep.path}: field 'command'"
    try:
        parser = fit_parser(sweep.words)
    except ArgumentError as error:
        raise UserError(f"{base} cannot be run: {' '.join(str(error).split())[:300]}") from None
    for parameter in sweep.parameters:
        for value in parameter.examples:
            words = [*sweep.words, *words_of({**first, parameter.name: value})]
            try:
                options = parser.parse_args(["fit", *words])
            except ArgumentError as error:
                raise UserError(_blame(sweep, parameter.name, value, error)) from None
            _check_log(sweep, options.fit.trainer)


def _check_log(sweep: Sweep, trainer: Any) -> None:
    """A trial's score is in the metrics.csv of `fit`'s own logger."""
    if trainer.logger not in (None, True):
        option = "trainer.logger"
    elif trainer.fast_dev_run:
        option = "trainer.fast_dev_run"
    else:
        return
    raise UserError(
        f"{sweep.path}: {option} is set, by a config or as a parameter: a trial would write no metrics.csv, "
        "by which it is ranked; leave it out"
    )


def fit_parser(words: Sequence[str]) -> LightningArgumentParser:
    """The parser of `fit`; it takes the word `fit` and what stands behind it.

    Args:
        words: what stands behind `fit`; they are parsed, too.

    Raises:
        ArgumentError: an option that does not exist or does not take its value.
    """
    return ParsingCLI(
        Retriever,
        RetrievalData,
        args=["fit", *words],
        save_config_callback=None,
        parser_kwargs={"prog": "lit-retrofit", "exit_on_error": False, "fit": {"exit_on_error": False}},
    ).parser


def _blame(sweep: Sweep, name: str, value: object, error: ArgumentError) -> str:
    text = " ".join(str(error).split())
    if text.startswith(_UNKNOWN):
        unknown = text.removeprefix(_UNKNOWN).split("=")[0]
        return (
            f"{sweep.path}: parameter '{unknown}' is no option of lit-retrofit fit; "
            "`lit-retrofit fit --print_config` shows them all"
        )
    return f"{sweep.path}: parameter '{name}' does not take {value!r}: {text[:300]}"
