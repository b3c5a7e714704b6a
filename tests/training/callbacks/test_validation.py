"""Monitored measures exist, or the run ends before it begins (TRAPS 24); early stopping by config."""

from __future__ import annotations

import pytest

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
])  # fmt: skip
def test_a_monitored_measure_that_does_not_exist(run, capsys, options, told: str) -> None:
    assert run(*EARLY, *options) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert not (run.folder / "run" / "checkpoints").exists()


def test_every_measure_that_is_told_can_be_monitored(run) -> None:
    for key in ("val/monolingual/MRR@10", "val/nDCG@10"):
        assert (
            run(*EARLY, f"--trainer.callbacks.monitor={key}", "--trainer.max_epochs", "1", "--overwrite") == 0
        )
