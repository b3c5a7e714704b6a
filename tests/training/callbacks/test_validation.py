"""Monitored measures exist, or the run ends before it begins; early stopping by config."""

from __future__ import annotations

import csv

import pytest

from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.training.callbacks import StepMonitor
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.objective import ObjectiveOptions
from lit_retrofit.training.objective.spread_out import SpreadOutOptions

EARLY = ("--config", "configs/callbacks/early_stopping.yaml")


def test_early_stopping_by_its_config_file(run) -> None:
    """With a rate of almost nothing no validation is better than the first."""
    frozen = ("--model.optimizer.learning_rate", "1e-12", "--trainer.max_epochs", "9")
    assert run(*EARLY, *frozen, "--trainer.callbacks.patience=2") == 0
    assert len(run.column("val/nDCG@10")) == 3
    assert run.content()["global_step"] == 9
    assert run.content(file="best")["global_step"] == 3


def test_config_files_of_callbacks_add_up(run) -> None:
    files = [word for name in ("early_stopping", "ema", "remine", "hardest_negatives")
             for word in ("--config", f"configs/callbacks/{name}.yaml")]  # fmt: skip
    assert run(*files, "--trainer.max_epochs", "2") == 0
    kept = run.content()["callbacks"]
    assert any(key.startswith("EarlyStopping") for key in kept)
    assert {"AveragedWeights", "Remine", "StepSeeds"} <= kept.keys()
    assert (run.folder / "run" / "hardest.jsonl").exists()
    assert (run.folder / "run" / "remined" / "epoch-1.jsonl").exists()
    assert run("--overwrite", "--trainer.max_steps", "1") == 0
    assert not (run.folder / "run" / "hardest.jsonl").exists()
    assert not (run.folder / "run" / "remined").exists()


@pytest.mark.parametrize(("options", "told"), [
    (("--trainer.callbacks.monitor=val/ndcg",), "val/monolingual/nDCG@10"),
    (("--trainer.callbacks.monitor=val/all/nDCG@10",), "val/monolingual/nDCG@10"),
    (("--data.options.validation", "null", "--data.options.validation_share", "0"), "no validation data"),
    (("--trainer.callbacks.monitor=val_loss",), "val_loss, which is not measured; there are train/acc"),
    (("--trainer.callbacks.monitor=train/lose",), "train/loss, train/masked_pairs"),
    (("--trainer.callbacks.monitor=step",), "val/monolingual/nDCG@10"),
    (("--trainer.callbacks.monitor=val_loss", "--data.options.validation", "null",
      "--data.options.validation_share", "0"), "train/temperature, train/tokens_per_second"),
])  # fmt: skip
def test_a_monitored_measure_that_does_not_exist(run, capsys, options, told: str) -> None:
    assert run(*EARLY, *options) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert not (run.folder / "run" / "checkpoints").exists()


def test_every_measure_that_is_told_can_be_monitored(run) -> None:
    for key in ("val/monolingual/MRR@10", "val/nDCG@10", "train/loss", "train/accuracy", "lr-AdamW"):
        assert (
            run(*EARLY, f"--trainer.callbacks.monitor={key}", "--trainer.max_epochs", "1", "--overwrite") == 0
        )


def test_what_a_step_logs_is_known_beforehand(run) -> None:
    assert run("--trainer.max_epochs", "1", "--model.objective.spread_out.weight", "0.1") == 0
    with (run.folder / "run" / "metrics.csv").open() as file:
        logged = {name for name in next(csv.reader(file)) if name.startswith("train/")}
    folder = run.words()[run.words().index("--model.encoder.model") + 1]
    objective = ObjectiveOptions(spread_out=SpreadOutOptions(0.1))
    module = Retriever(EncoderOptions(folder), objective)
    assert {*module.figures, *StepMonitor.FIGURES} == logged


def test_what_only_others_know_of_may_be_monitored(run, injected) -> None:
    """A callback from elsewhere may log anything; a checkpoint may follow the steps."""
    mine = ("--trainer.callbacks.monitor=mine", "--trainer.callbacks.strict=false")
    short = ("--trainer.max_epochs", "1")
    assert run(*EARLY, *mine, *injected("SignalAt", step=99, name="SIGTERM"), *short) == 0
    steps = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=step",
             "--trainer.callbacks.mode=max")  # fmt: skip
    assert run(*steps, *short, name="steps") == 0
