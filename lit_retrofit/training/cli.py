"""``fit``, ``validate``, ``test`` and ``predict`` on LightningCLI."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from lightning import Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ModelSummary, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.errors import UserError
from lit_retrofit.model.device import choose_device, multiplies_bf16
from lit_retrofit.model.loading import read_options
from lit_retrofit.training.callbacks import (
    MONITOR,
    EmbeddingWriter,
    Interruption,
    LossGuard,
    ParameterCount,
    StepSeeds,
    TrainingCard,
    WandbOutcome,
    WholeStepCheckpoint,
)
from lit_retrofit.training.checkpoint_io import AtomicCheckpointIO
from lit_retrofit.training.ending import ending
from lit_retrofit.training.faults import faults_in_one_line
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.loggers import loggers
from lit_retrofit.training.near_options import near_options
from lit_retrofit.training.run_folder import of_this_trial, prepare_embeddings, prepare_output
from lit_retrofit.training.saved_config import SaveFitConfig
from lit_retrofit.training.terminating import stopped_by_sigterm
from lit_retrofit.training.trainer import RetrofitTrainer

log = logging.getLogger(__name__)


class RetrofitCLI(LightningCLI):
    """LightningCLI with one output folder per run, its loggers and callbacks, and the model's tokenizer.

    Attributes:
        command: the only one that a parser is made for: those of all four take 0.3 seconds, one 0.1.
        descriptions: what --help says of each.
    """

    command: ClassVar[str] = "fit"
    descriptions: ClassVar[dict[str, str]] = {
        "fit": "Trains a model. "
        "Example: lit-retrofit fit --config configs/recipes/quickstart.yaml --output runs/quickstart",
        "validate": "Measures a configuration, or a checkpoint of it, on its validation data. "
        "Example: lit-retrofit validate --config runs/mine/config.yaml "
        "--ckpt_path runs/mine/checkpoints/best.ckpt",
        "test": "Measures a checkpoint on the data set data.options.test. "
        "Example: lit-retrofit test --config runs/mine/config.yaml --data.options.test my-beir/ "
        "--ckpt_path runs/mine/checkpoints/best.ckpt",
        "predict": "Embeds the texts of data.options.predict and writes embeddings.npy into --output. "
        "Example: lit-retrofit predict --config runs/mine/config.yaml --data.options.predict texts.jsonl "
        "--ckpt_path runs/mine/checkpoints/best.ckpt --return_predictions false",
    }

    @classmethod
    def subcommands(cls) -> dict[str, set[str]]:
        """The command, with the arguments of the Trainer's method that are no options."""
        return {cls.command: LightningCLI.subcommands()[cls.command]}

    def __init__(
        self,
        model_class: type[Retriever],
        datamodule_class: type[RetrievalData],
        *,
        trainer_class: type[Trainer] = RetrofitTrainer,
        **kwargs: Any,
    ) -> None:
        """Parses, and runs the command; all but what is set here is as LightningCLI's."""
        super().__init__(
            model_class,
            datamodule_class,
            trainer_class=trainer_class,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds --output and --overwrite, and hands the model's tokenizer to the data."""
        parser.add_argument(
            "--output", type=Path, default=Path("runs/fit"), help="folder for checkpoints, logs and config"
        )
        parser.add_argument(
            "--overwrite", action="store_true", help="replace an earlier run in the output folder"
        )
        parser.add_argument(
            "--wandb",
            type=bool,
            default=True,
            help="log to Weights & Biases, offline until you `wandb login`",
        )
        parser.add_argument(
            "--wandb_model",
            type=bool,
            default=True,
            help="give Weights & Biases the best checkpoint, else the last, as an artifact at the end",
        )
        parser.add_argument(
            "--wandb_records",
            type=int,
            default=50,
            help="training records with their hard negatives that Weights & Biases gets as a table",
        )
        parser.add_argument(
            "--save_minutes",
            type=float,
            default=10.0,
            help="save last.ckpt so often, besides after each epoch; 0 saves after every step",
        )
        parser.link_arguments("model.tokenizer", "data.tokenize", apply_on="instantiate")

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Lets --help speak of this command, where Lightning's text is of the Trainer's method."""
        kwargs |= {
            "description": self.descriptions[subcommand],
            "usage": f"lit-retrofit {subcommand} [--config FILE ...] [--OPTION VALUE ...]",
        }
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser._action_groups[-1].title = f"of {subcommand} alone"
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Checks the checkpoint, too: right after this, Lightning reads it as if it were one."""
        words = args if isinstance(args, list) else []
        own = self._subcommand_parsers.get(words[0]) if words else None
        with near_options(own or parser, words):
            super().parse_arguments(parser, args)
        _check_checkpoint(self._options.get("ckpt_path"))

    def before_instantiate_classes(self) -> None:
        """Checks the output folder before anything slow is loaded."""
        options = self._options
        # The others would find what the first has already written.
        if self.subcommand == "fit":
            options["output"] = of_this_trial(options["output"])
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        if first and self.subcommand == "fit" and options.get("ckpt_path") is None:
            prepare_output(options["output"], options["overwrite"])
        if first and self.subcommand == "predict":
            prepare_embeddings(options["output"], options["overwrite"])
        if options["save_minutes"] < 0:
            raise UserError(f"save_minutes is {options['save_minutes']}; 0 saves after every step")
        options["overwrite"] = False  # not for the saved config: repeating it must not overwrite this run

    @property
    def _options(self) -> Any:
        return self.config[self.config["subcommand"]]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with the run's own loggers and callbacks where the config names none."""
        folder = self._options["output"]
        config = self.config_init[self.subcommand]["trainer"]
        if config["max_epochs"] is None and config["max_steps"] == -1 and config["max_time"] is None:
            config["max_epochs"] = 1  # Lightning's own default of 1000 helps nobody here
        if config["precision"] is None:
            config["precision"] = "bf16-mixed" if multiplies_bf16(choose_device("auto")) else "32-true"
        config["default_root_dir"] = config["default_root_dir"] or str(folder)
        if config["logger"] in (None, True):
            config["logger"] = self._loggers(folder) if self.subcommand == "fit" else False
        config["plugins"] = _with_checkpoint_io(config["plugins"])
        config["callbacks"] = [
            *(config["callbacks"] or []),
            *self._callbacks(folder, config["callbacks"] or []),
        ]
        return super().instantiate_trainer(**kwargs)

    def _loggers(self, folder: Path) -> list[Logger]:
        options = self._options
        return loggers(folder, checkpoint=options.get("ckpt_path"), wandb=options["wandb"])

    def _callbacks(self, folder: Path, given: list[Any]) -> list[Any]:
        trainer = self.config_init[self.subcommand]["trainer"]
        callbacks: list[Any] = []
        if trainer["enable_progress_bar"] is not False:
            callbacks.append(RichProgressBar(leave=self.subcommand == "fit"))
        if self.subcommand == "predict":
            callbacks.append(EmbeddingWriter(folder))
        if self.subcommand != "fit":
            return callbacks
        callbacks += [TrainingCard(folder), StepSeeds(), LossGuard(folder)]
        if trainer["enable_model_summary"] is None and not any(isinstance(c, ModelSummary) for c in given):
            callbacks.append(ParameterCount())
            trainer["enable_model_summary"] = False  # Lightning would say that it makes no other
        if self._options["wandb"]:
            callbacks.append(
                WandbOutcome(folder, self._options["wandb_model"], self._options["wandb_records"])
            )
        if trainer["logger"]:
            callbacks.append(LearningRateMonitor("step"))
        own = any(isinstance(callback, ModelCheckpoint) for callback in given)
        if trainer["enable_checkpointing"] is not False:
            callbacks += [] if own else self._checkpoints(folder / "checkpoints")
            callbacks.append(Interruption(folder))
        return callbacks

    def _checkpoints(self, folder: Path) -> list[ModelCheckpoint]:
        """The run's best state by the validation measure, where there is validation data, and its last.

        In this order, for the last one holds what the best is.
        """

        def checkpoint(filename: str, **when: Any) -> ModelCheckpoint:
            return WholeStepCheckpoint(
                dirpath=folder, filename=filename, enable_version_counter=False, **when
            )

        every = timedelta(minutes=self._options["save_minutes"])
        # Of itself Lightning saves after validations, wherever they are, and what comes after them is lost.
        last = [
            checkpoint("last", save_on_train_epoch_end=True),
            checkpoint("last", train_time_interval=every),
        ]
        data = self.datamodule.options
        if data.validation is None and data.validation_share == 0:
            return last
        return [checkpoint("best", monitor=MONITOR, mode="max"), *last]

    def after_fit(self) -> None:
        """Tells what the run has come to."""
        trial = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        if self.trainer.is_global_zero and not trial:
            print("\n".join(ending(self.trainer, self._options["output"])), flush=True)


class ValidateCLI(RetrofitCLI):
    """``lit-retrofit validate``."""

    command = "validate"


class TestCLI(RetrofitCLI):
    """``lit-retrofit test``."""

    command = "test"


class PredictCLI(RetrofitCLI):
    """``lit-retrofit predict``."""

    command = "predict"


def _with_checkpoint_io(plugins: Any) -> list[Any]:
    given = plugins if isinstance(plugins, list) else [plugins] if plugins else []
    own = any(isinstance(plugin, CheckpointIO) for plugin in given)
    return given if own else [*given, AtomicCheckpointIO()]


def _check_checkpoint(path: str | None) -> None:
    """Reads enough of a file to refuse it at once. Words of Lightning's, such as last, are no files."""
    if path is None or "://" in path:
        return
    if Path(path).is_dir():
        raise UserError(f"{path}: is a folder; give a file, such as checkpoints/last.ckpt of a run")
    if not Path(path).exists():
        raise UserError(f"{path}: no such checkpoint; give the file with --ckpt_path")
    read_options(Path(path))


def run(arguments: list[str]) -> None:
    """Runs the command that the first word names."""
    clis = {cli.command: cli for cli in (RetrofitCLI, ValidateCLI, TestCLI, PredictCLI)}
    command = arguments[0]
    with stopped_by_sigterm(), faults_in_one_line():
        clis[command](
            Retriever,
            RetrievalData,
            args=arguments,
            save_config_callback=SaveFitConfig,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": "lit-retrofit",
                "exit_on_error": False,
                command: {"exit_on_error": False},
            },
        )
