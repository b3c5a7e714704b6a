"""The configuration of a run, parsed as `fit` parses it, without weights, data or a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.cli import LightningArgumentParser

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.planning.devices import CPU, check_device
from lit_retrofit.training.cli import RetrofitCLI
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.sharded_strategy import NAME as SHARDED
from lit_retrofit.training.sharded_strategy import ShardedStrategy
from lit_retrofit.training.trainer import RetrofitTrainer

PLAN = "plan"


class PlannedRetriever(Retriever):
    """A retriever that has shapes alone."""

    @staticmethod
    def make_encoder(options: EncoderOptions) -> Encoder:
        """The encoder on torch's meta device."""
        return build_encoder(options, weights=False)


class PlannedTrainer(RetrofitTrainer):
    """The trainer that `fit` would have; none is made, for the device of the plan need not be here."""

    plan = RetrofitTrainer.fit


class PlanCLI(RetrofitCLI):
    """Takes every option of `fit`, and its own."""

    descriptions: ClassVar[dict[str, str]] = {
        PLAN: "Tells what `fit` would take with the same options: memory by part, the largest batch, the "
        "time of a step. Nothing is trained. "
        "Example: lit-retrofit plan --config configs/recipes/quickstart.yaml --device rtx4090"
    }

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one command, with the arguments of `fit`."""
        return {PLAN: RetrofitCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the plan's own options."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--device", type=str, default=CPU, help="cpu or a card: rtx4090, l4, a100, h100, …"
        )
        parser.add_argument("--json", type=Path | None, default=None, help="also write the plan to this file")
        parser.add_argument(
            "--query_tokens",
            type=float | None,
            default=None,
            help="of a usual query; else the config's maximum",
        )
        parser.add_argument(
            "--document_tokens",
            type=float | None,
            default=None,
            help="of a usual document; else the config's maximum",
        )
        parser.add_argument(
            "--measure_data",
            action="store_true",
            help="read the training data and take the mean lengths of 2,000 records",
        )

    def before_instantiate_classes(self) -> None:
        """Checks the device before anything slow begins; the output folder is not touched."""
        check_device(self.config[PLAN]["device"])

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """None."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


@dataclass(frozen=True)
class Parsed:
    """A run as configured.

    Attributes:
        retriever: without weights.
        data: not read.
        options: all others by name; ``trainer`` holds those of the trainer.
    """

    retriever: Retriever
    data: RetrievalData
    options: Any


def parse(words: list[str]) -> Parsed:
    """Parses what stands behind `lit-retrofit plan`.

    Raises:
        UserError: an unknown device, or a value that `fit` would refuse.
        ArgumentError: an unknown option.
    """
    cli = PlanCLI(
        PlannedRetriever,
        RetrievalData,
        args=[PLAN, *words],
        trainer_class=PlannedTrainer,
        save_config_callback=None,
        parser_kwargs={"prog": "lit-retrofit", "exit_on_error": False, PLAN: {"exit_on_error": False}},
    )
    return Parsed(cli.model, cli.datamodule, cli.config[PLAN])


def count_devices(given: int | str | list[int]) -> int:
    """How many devices of a machine ``trainer.devices`` names; one where it leaves that to the machine.

    Raises:
        UserError: it is no number, list of indices or ``auto``.
    """
    if isinstance(given, list):
        return len(given)
    text = str(given).strip()
    if "," in text:
        return len([index for index in text.split(",") if index.strip()])
    if text in ("auto", "-1"):
        return 1
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"trainer.devices is {text}; give how many, a list of indices, or auto")
    return int(text)


def is_sharded(strategy: Any) -> bool:
    """Whether ``trainer.strategy``, a name or a class with its arguments, splits the weights."""
    name = strategy if isinstance(strategy, str) else strategy["class_path"]
    return name == SHARDED or name.rpartition(".")[2] == ShardedStrategy.__name__
