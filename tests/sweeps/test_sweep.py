"""Real trials with a tiny model: run, ranked, not run again, gone on with, refused."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lit_retrofit.cli import main
from lit_retrofit.sweeps.space import Sweep
from lit_retrofit.sweeps.trials import Trials, best_value

ROOT = Path(__file__).parents[2]
METRIC = {"name": "val/nDCG@10", "goal": "maximize"}


@pytest.fixture
def write(bert_folder, tmp_path):
    rows = [{"query": f"what of {i}{i}", "positive": f"page {i}{i} tells {i}"} for i in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"encoder": {"model": str(bert_folder), "lora": {"r": 2}}},
        "data": {
            "options": {"train": [str(tmp_path / "train.jsonl")], "validation_share": 0.3},
            "sampling": {"batch_size": 4},
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "precision": "32-true"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(config))

    def make(parameters: dict, **changes) -> list[str]:
        content = {"name": "tiny", "method": "grid", "metric": METRIC, "parameters": parameters}
        content["command"] = [
            "${env}",
            "lit-retrofit",
            "fit",
            "--config",
            str(tmp_path / "base.yaml"),
            "${args}",
        ]
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**content, **changes}))
        return ["sweep", str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "out")]

    return make


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The words of each trial, which runs in this process: two seconds instead of ten."""
    seen: list[list[str]] = []

    def start(self, folder: Path, values: dict) -> int:
        calls: list[list[str]] = []

        class Process:
            def __init__(self, command, **options):
                calls.append(command[3:])
                self.log = io.TextIOWrapper(options["stderr"], write_through=True)

            def wait(self) -> int:
                with contextlib.redirect_stderr(self.log), monkeypatch.context() as inside:
                    inside.setattr(subprocess, "Popen", popen)  # a run asks git for its version
                    status = main(calls[0])
                self.log.detach().flush()
                return status

            def send_signal(self, number: int) -> None: ...

        monkeypatch.setattr(subprocess, "Popen", Process)
        try:
            return right(self, folder, values)
        finally:
            seen.extend(calls)

    right, popen = Trials._start, subprocess.Popen
    monkeypatch.setattr(Trials, "_start", start)
    return seen


def last_error(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_trials_are_run_ranked_and_not_run_again(write, started, tmp_path, capsys) -> None:
    words = write(
        {"model.optimizer.learning_rate": {"values": [1.0e-6, 0.05]}, "model.encoder.lora.r": {"value": 4}}
    )
    assert main(words) == 0
    assert [word for words in started for word in words if "learning_rate" in word] == [
        "--model.optimizer.learning_rate=1e-06",
        "--model.optimizer.learning_rate=0.05",
    ]
    table = json.loads((tmp_path / "out" / "sweep.json").read_text())
    scores = [trial["score"] for trial in table["trials"]]
    assert len(set(scores)) == 2 and scores == sorted(scores, reverse=True)
    for trial in table["trials"]:
        folder = tmp_path / "out" / trial["folder"]
        with (folder / "metrics.csv").open() as file:
            logged = [float(row["val/nDCG@10"]) for row in csv.DictReader(file) if row["val/nDCG@10"]]
        assert len(logged) == 2 and trial["score"] == max(logged)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (
            config["model"]["optimizer"]["learning_rate"] == trial["values"]["model.optimizer.learning_rate"]
        )
        assert config["model"]["encoder"]["lora"]["r"] == 4
        assert (folder / "checkpoints" / "best.ckpt").is_file()
    shown = capsys.readouterr().out
    assert "learning_rate" in shown and f"{scores[0]:.4f}" in shown
    # Again, with one value more: only that one runs.
    write(
        {
            "model.optimizer.learning_rate": {"values": [1.0e-6, 0.05, 0.01]},
            "model.encoder.lora.r": {"value": 4},
        }
    )
    assert main(words) == 0
    assert len(started) == 3 and "already there" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "sweep.json").read_text())["trials"]) == 3


def test_a_trial_that_was_stopped_goes_on(write, started, tmp_path) -> None:
    words = write({"model.optimizer.learning_rate": {"values": [0.01]}})
    assert main(words) == 0
    (folder,) = (tmp_path / "out").glob("trial-000-*[!.log]")
    (folder / "trial.json").unlink()
    assert main(words) == 0
    assert f"--ckpt_path={folder}/checkpoints/last.ckpt" in started[1]
    assert not any(word.startswith("--ckpt_path") for word in started[0])
    assert json.loads((folder / "trial.json").read_text())["score"] is not None


def test_a_failed_trial_is_told_and_run_again(write, started, tmp_path, capsys) -> None:
    words = write({"data.sampling.batch_size": {"values": [0, 4]}})
    for runs in (2, 3):
        assert main(words) == 2
        error = last_error(capsys)
        assert "1 of 2 trials failed" in error and "batch_size" in error
        assert len(started) == runs
    trials = json.loads((tmp_path / "out" / "sweep.json").read_text())["trials"]
    assert [trial["score"] is None for trial in trials] == [False, True]


NO_FILE = ["lit-retrofit", "fit", "--config", "no.yaml"]
REFUSED = {
    "unknown": ({"model.objective.temprature": {"values": [0.1]}}, {}, "temprature' is no option"),
    "value": ({"data.sampling.batch_size": {"values": [4, "many"]}}, {}, "does not take 'many'"),
    "output": ({"output": {"values": ["a", "b"]}}, {}, "'output' is the sweep's own"),
    "config": ({"seed_everything": {"value": 1}}, {"command": [*NO_FILE, "${args}"]}, "no.yaml"),
    "no log": ({"trainer.logger": {"values": [True, False]}}, {}, "trainer.logger is set"),
    "trial run": ({"trainer.fast_dev_run": {"value": True}}, {}, "trainer.fast_dev_run is set"),
    "endless": ({"seed_everything": {"min": 1, "max": 9}}, {"method": "random"}, "run_cap"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_before_the_first_trial(
    write, started, tmp_path, capsys, name: str
) -> None:
    parameters, changes, part = REFUSED[name]
    good = {"model.optimizer.learning_rate": {"values": [0.01]}} if name != "endless" else {}
    assert main(write({**good, **parameters}, **changes)) == 2
    error = capsys.readouterr().err
    assert part in error.splitlines()[-1] and error.count("error:") == 1
    assert not started and not (tmp_path / "out").exists()


OWN = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "elsewhere"}}


@pytest.mark.parametrize("logger", [False, OWN, [OWN]], ids=["none", "own", "list"])
def test_a_config_without_the_log_that_ranks_is_refused(write, started, tmp_path, capsys, logger) -> None:
    words = write({"seed_everything": {"value": 1}})
    config = yaml.safe_load((tmp_path / "base.yaml").read_text())
    config["trainer"]["logger"] = logger
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(config))
    assert main(words) == 2
    assert "trainer.logger is set, by a config or as a parameter" in last_error(capsys)
    assert not started and not (tmp_path / "out").exists()


def environment(monkeypatch, sweep: Sweep, folder: Path, *, wandb: bool, **own: str) -> dict[str, str]:
    """What W&B's client reads of a trial's environment."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    seen: list[dict[str, str]] = []

    class Process:
        def __init__(self, command, *, env, **options):
            seen.append(env)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    Trials(sweep, folder.parent, wandb=wandb)._start(folder, {})
    return {name: value for name, value in seen[0].items() if name.startswith("WANDB_")}


def test_trials_are_grouped_and_named(tmp_path, monkeypatch) -> None:
    sweep = Sweep(Path("s.yaml"), "tiny", "grid", "m", True, (), (), None, project="mine", entity="us")
    folder = tmp_path / "trial-003-1f2e3d4c"
    names = {"WANDB_RUN_GROUP": "tiny", "WANDB_NAME": "trial-003-1f2e3d4c"}
    of_file = {"WANDB_PROJECT": "mine", "WANDB_ENTITY": "us"}
    assert environment(monkeypatch, sweep, folder, wandb=True) == names | of_file
    own = {"WANDB_PROJECT": "theirs", "WANDB_MODE": "offline"}  # they win, as with `wandb sweep`
    assert environment(monkeypatch, sweep, folder, wandb=True, **own) == names | of_file | own
    silent = Sweep(Path("s.yaml"), "tiny", "grid", "m", True, (), (), None)
    assert environment(monkeypatch, silent, folder, wandb=True) == names
    assert environment(monkeypatch, sweep, folder, wandb=False) == {}


@pytest.mark.slow
def test_trials_are_logged_to_wandb_each_with_its_own_configuration(write, tmp_path, monkeypatch) -> None:
    """Lightning #16836: the command line's configuration and that of W&B's logger clash."""
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "kernels")]))
    rates = [0.0123, 0.0456]
    parameters = {"model.optimizer.learning_rate": {"values": rates}}
    words = write(parameters, project="my-project", entity="my-team")
    assert main([*words, "--wandb", "true"]) == 0
    trials = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert len(trials) == 2
    for trial, rate in zip(trials, rates, strict=True):
        config = yaml.safe_load((trial / "config.yaml").read_text())
        assert config["model"]["optimizer"]["learning_rate"] == rate
        assert json.loads((trial / "trial.json").read_text())["score"] is not None
        (log,) = (trial / "wandb").glob("offline-run-*/*.wandb")
        content = log.read_bytes()
        assert all(name.encode() in content for name in ("tiny", trial.name, "my-project", "my-team"))
        assert [str(other).encode() in content for other in rates] == [other == rate for other in rates]


def test_a_metric_that_is_not_logged(tmp_path) -> None:
    from lit_retrofit.errors import UserError

    log = tmp_path / "metrics.csv"
    log.write_text("step,train/loss,val/nDCG@10\n0,1.5,\n1,nan,0.25\n2,,0.75\n3,,0.5\n")
    assert best_value(log, "val/nDCG@10", True) == 0.75 and best_value(log, "val/nDCG@10", False) == 0.25
    assert best_value(log, "train/loss", False) == 1.5
    with pytest.raises(UserError, match="'val/x' is not logged; there are step, train/loss, val/nDCG@10"):
        best_value(log, "val/x", True)


@pytest.mark.slow
def test_sigterm_stops_a_sweep_once_its_trial_has_saved(write, tmp_path) -> None:
    words = write({"trainer.max_epochs": {"value": 4000}, "save_minutes": {"value": 0}}, run_cap=1)
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    code = "import sys; from lit_retrofit.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 240
    while not list((tmp_path / "out").glob("trial-*/checkpoints/last.ckpt")):
        assert time.time() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on there" in error.splitlines()[-1]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert not (folder / "trial.json").exists()


@pytest.mark.slow
def test_every_value_of_the_shipped_sweeps_is_taken_by_fit() -> None:
    from lit_retrofit.sweeps.checking import check_sweep
    from lit_retrofit.sweeps.space import read_sweep

    for file in sorted((ROOT / "configs" / "sweeps").glob("*.yaml")):
        check_sweep(read_sweep(file))
