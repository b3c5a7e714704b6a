"""What the Trainer commands add to Lightning's command line: the output folder, loggers, callbacks."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from lit_retrofit.cli import main
from lit_retrofit.errors import UserError
from lit_retrofit.training.cli import RetrofitCLI
from lit_retrofit.training.ending import ending
from lit_retrofit.training.loggers import _wandb_logger
from lit_retrofit.training.metrics_log import csv_logger
from lit_retrofit.training.run_folder import prepare_output


@pytest.fixture
def fit(bert_folder, tmp_path):
    rows = [{"query": f"q {i}{i}", "positive": f"page {i}{i}"} for i in range(12)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*extra: str, wandb: str = "false") -> int:
        return main(
            [
                "fit",
                "--output",
                str(tmp_path / "run"),
                "--model.encoder.model",
                str(bert_folder),
                "--model.encoder.lora.r",
                "2",
                "--data.options.train",
                f"[{file}]",
                "--data.sampling.batch_size",
                "4",
                "--trainer.accelerator",
                "cpu",
                "--trainer.max_steps",
                "2",
                "--wandb",
                wandb,
                *extra,
            ]
        )

    return run


def test_a_file_in_the_way(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is a file"):
            prepare_output(tmp_path / "file", overwrite)


def test_overwriting_removes_what_a_run_writes_and_nothing_else(tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "metrics.csv", "training.json", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "mined").mkdir()
    with pytest.raises(UserError, match="--overwrite"):
        prepare_output(tmp_path, False)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    prepare_output(tmp_path, True)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "mined"}


def test_a_checkpoint_to_go_on_from_is_named_only_where_there_is_one(tmp_path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.yaml").write_text("x")
    with pytest.raises(UserError, match=r"already holds a run \(config.yaml\)") as raised:
        prepare_output(run, False)
    assert "--ckpt_path" not in str(raised.value)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_text("x")
    with pytest.raises(UserError) as raised:
        prepare_output(run, False)
    assert f"--ckpt_path '{run}/checkpoints/last.ckpt'" in str(raised.value)


def test_a_run_that_failed_before_it_began_is_not_in_the_way(fit, tmp_path, capsys) -> None:
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert fit("--model.graph_memory", "auto") == 0
    said = capsys.readouterr().out
    assert f"trained 2 steps; the run is in {tmp_path / 'run'}" in said
    assert f"lit-retrofit evaluate {tmp_path / 'run'} --data DATA" in said
    assert f"lit-retrofit export {tmp_path / 'run'} --output {tmp_path / 'run' / 'export'}" in said
    assert "FLOPs" not in said and "of them trained" in said


def test_the_end_names_the_best_checkpoint_and_quotes_folders(tmp_path) -> None:
    best = ModelCheckpoint(monitor="val/nDCG@10")
    best.best_model_path, best.best_model_score = "best.ckpt", torch.tensor(0.5)
    trainer = SimpleNamespace(global_step=3, checkpoint_callbacks=[ModelCheckpoint(), best], loggers=[])
    folder = tmp_path / "my run"
    assert ending(trainer, folder)[1:] == ["best checkpoint: best.ckpt (val/nDCG@10 0.5000)"]
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("x")
    assert f"  lit-retrofit export '{folder}' --output '{folder}/export'" in ending(trainer, folder)


def test_wandb_is_told_nothing_that_it_warns_about(tmp_path, monkeypatch) -> None:
    for key, silent in ((None, True), ("key", False)):
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
        given = _wandb_logger(tmp_path / "run")._wandb_init
        assert given["settings"].silent == silent  # online, W&B says where the run is
        assert "anonymous" not in given and (tmp_path / "run").is_dir()


def test_wandbs_project_is_the_users_where_they_name_one(tmp_path, monkeypatch) -> None:
    for given, project in (("theirs", "theirs"), ("", "lit-retrofit")):
        monkeypatch.setenv("WANDB_PROJECT", given)
        made = _wandb_logger(tmp_path / "run")._wandb_init
        assert made["project"] == project and "entity" not in made  # the client finds WANDB_ENTITY by itself


def test_an_empty_or_missing_folder_is_fine(tmp_path) -> None:
    prepare_output(tmp_path, False)
    prepare_output(tmp_path / "new", False)


@pytest.mark.parametrize("switched_off", [
    ("--trainer.enable_progress_bar", "false"), ("--trainer.logger", "false"),
    ("--trainer.enable_checkpointing", "false"), ("--trainer.num_sanity_val_steps", "2"),
    ("--trainer.fast_dev_run", "true"), ("--trainer.limit_val_batches", "0"),
])  # fmt: skip
def test_the_trainers_own_switches(fit, tmp_path, switched_off: tuple[str, str]) -> None:
    # Twelve records with a third held out, in micro-batches of a text each: a part would be measured wrongly.
    assert (
        fit(*switched_off, "--data.options.validation_share", "0.4", "--data.options.token_budget", "10") == 0
    )
    assert (tmp_path / "run" / "checkpoints").exists() == (
        switched_off[0] not in ("--trainer.enable_checkpointing", "--trainer.fast_dev_run")
    )


def test_measuring_a_part_is_refused(fit, capsys) -> None:
    options = (
        "--seed_everything", "0",  # few records: which are split off must not depend on earlier tests
        "--data.options.validation_share", "0.4",
        "--data.options.token_budget", "10",
    )  # fmt: skip
    assert fit("--trainer.limit_val_batches", "1", *options) == 2
    assert "limit_val_batches" in capsys.readouterr().err


@pytest.mark.slow
def test_wandb_offline(fit, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    import wandb

    try:
        assert fit(wandb="true") == 0
        logged = dict(wandb.run.config)
        assert logged["config"]["data"]["sampling"]["batch_size"] == 4
        assert logged["config"]["trainer"]["max_steps"] == 2 and "commit" in logged["code"]
    finally:
        wandb.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_trials_of_a_wandb_agent_get_folders_of_their_own(fit, tmp_path, monkeypatch) -> None:
    """The agent starts every trial with the same --output (Lightning #16836)."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    for name in ("one", "two"):
        monkeypatch.setenv("WANDB_RUN_ID", name)
        assert fit() == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"one", "two"}
    assert (tmp_path / "run" / "two" / "config.yaml").is_file()
    # Without a sweep, a run's id changes nothing.
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert fit("--overwrite") == 0
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_the_other_commands_leave_a_runs_files_alone(fit, bert_folder, tmp_path) -> None:
    run = tmp_path / "run"
    assert fit("--data.options.validation_share", "0.4") == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = [
        "--model.encoder.model",
        str(bert_folder),
        "--model.encoder.lora.r",
        "2",
        "--trainer.accelerator",
        "cpu",
    ]
    words += ["--output", str(run), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    words += [
        "--data.options.train",
        f"[{tmp_path / 'train.jsonl'}]",
        "--data.options.validation_share",
        "0.4",
    ]
    assert main(["validate", *words]) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_resuming_in_the_same_folder_keeps_the_log(fit, tmp_path) -> None:
    constant = ("--model.optimizer.schedule", "constant", "--model.optimizer.warmup", "0",
                "--trainer.log_every_n_steps", "1", "--data.options.validation_share", "0")  # fmt: skip
    assert fit(*constant) == 0
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    earlier = shutil.copy(last, tmp_path / "earlier.ckpt")
    # From its end, and again from the same point: then the lines after it are replaced.
    for checkpoint in (last, str(earlier)):
        assert fit(*constant, "--trainer.max_steps", "5", "--ckpt_path", checkpoint) == 0
        with (tmp_path / "run" / "metrics.csv").open() as file:
            steps = [line["step"] for line in csv.DictReader(file) if line["train/loss"]]
        assert steps == ["0", "1", "2", "3", "4"]
    assert json.loads((tmp_path / "run" / "training.json").read_text())["steps"] == 5


def test_lines_of_the_log_that_a_kill_has_cut_are_left_out(tmp_path) -> None:
    torch.save({"global_step": 40}, tmp_path / "last.ckpt")
    rows = ["loss,other,step", "0.5,,0", "0.4,1", "0.25,2,13", "0.3,,2x", "0.2,3,50", "0.1,,1,0.1,,2", ""]
    for cut in ("", "0.7,,3"):  # of step 37, perhaps
        (tmp_path / "metrics.csv").write_text("\n".join(rows) + cut)
        logger = csv_logger(tmp_path, str(tmp_path / "last.ckpt"))
        logger.log_metrics({"loss": 0.125}, 40)
        logger.save()
        with (tmp_path / "metrics.csv").open() as file:
            found = [(line["loss"], line["other"], line["step"]) for line in csv.DictReader(file)]
        assert found == [("0.5", "", "0"), ("0.25", "2", "13"), ("0.125", "", "40")]


def test_only_the_first_rank_touches_the_log(tmp_path, monkeypatch) -> None:
    torch.save({"global_step": 1}, tmp_path / "last.ckpt")
    (tmp_path / "metrics.csv").write_text("loss,step\n0.5,0\n0.4,1\n")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = csv_logger(tmp_path, str(tmp_path / "last.ckpt"))
    assert logger.experiment is not None  # as the Trainer asks for it
    logger.log_metrics({"loss": 1.0}, 1)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text() == "loss,step\n0.5,0\n0.4,1\n"


def test_a_disk_that_is_full_while_the_log_gets_a_column_leaves_it_as_it_is(tmp_path, monkeypatch) -> None:
    logger = csv_logger(tmp_path, None)
    logger.log_metrics({"loss": 0.5}, 0)
    before = (tmp_path / "metrics.csv").read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(csv.DictWriter, "writeheader", Mock(side_effect=full))
    with pytest.raises(UserError, match=r"metrics\.csv: cannot be written \(No space left"):
        logger.log_metrics({"other": 1.0}, 1)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_unknown_option_of_a_config_is_told_with_its_file(fit, tmp_path, capsys) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model:\n  objective:\n    temperatur: 0.1\n")
    assert fit("--config", str(config)) == 2
    said = capsys.readouterr().err
    assert f"{config}: no such option: 'model.objective.temperatur'; did you mean" in said


@pytest.mark.parametrize(
    "name", ["none.ckpt", "none.pt", "last", "folder", "cut.pt", "cut.ckpt", "empty.pt", "other.pt"]
)
def test_what_is_no_checkpoint_to_go_on_from(fit, tmp_path, capsys, name: str) -> None:
    (tmp_path / "folder").mkdir()
    torch.save({"encoder_options": {}, "weights": torch.zeros(1000)}, tmp_path / "whole")
    for cut in ("cut.pt", "cut.ckpt"):
        (tmp_path / cut).write_bytes((tmp_path / "whole").read_bytes()[:2000])
    (tmp_path / "empty.pt").touch()
    torch.save(torch.zeros(3), tmp_path / "other.pt")
    assert fit("--ckpt_path", name if name == "last" else str(tmp_path / name)) == 2
    said = capsys.readouterr().err.strip()
    assert f"{name}: " in said and "\n" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_and_the_whole_config(command: str, capsys) -> None:
    for flag in ("--help", "--print_config"):
        with pytest.raises(SystemExit) as ended:
            main([command, flag])
        assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert f"Example: lit-retrofit {command} --config" in " ".join(shown.split())
    assert f"of {command} alone:" in shown and "full optimization routine" not in shown
    assert "temperature: 0.02" in shown and "batch_size" in shown


def test_unknown_commands_and_options(capsys) -> None:
    assert main(["train"]) == 2
    assert "no such command" in capsys.readouterr().err
    assert main([]) == 0
    assert "fit" in capsys.readouterr().out


def test_predict_replaces_no_embeddings_unasked(bert_folder, tmp_path, capsys) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "one"}\n')
    out = tmp_path / "out"
    words = ["predict", "--model.encoder.model", str(bert_folder), "--data.options.predict", str(texts)]
    words += ["--trainer.accelerator", "cpu", "--output", str(out), "--return_predictions", "false"]
    assert main(words) == 0
    (out / "embeddings.npy").write_bytes(b"mine")
    assert main(words) == 2
    assert "embeddings.npy: already there" in capsys.readouterr().err
    assert (out / "embeddings.npy").read_bytes() == b"mine"
    assert main([*words, "--overwrite"]) == 0
    assert (out / "embeddings.npy").stat().st_size > 4


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_command_makes_no_parser_but_its_own(command, monkeypatch, capsys) -> None:
    made = []
    prepare = RetrofitCLI._prepare_subcommand_parser

    def noting(self, klass, subcommand, **kwargs):
        made.append(subcommand)
        return prepare(self, klass, subcommand, **kwargs)

    monkeypatch.setattr(RetrofitCLI, "_prepare_subcommand_parser", noting)
    assert main([command, "--no_such_option", "1"]) == 2
    assert made == [command] and "no such option" in capsys.readouterr().err
