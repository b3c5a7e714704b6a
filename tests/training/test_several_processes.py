"""Two and three processes against one: loss, gradient norm and weights after five steps."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.model.loading import load_encoder
from tests.training import one_of_several

CASES = {
    "full": {"lora": False, "graph_memory": 0, "accumulate": 1, "clip": None},
    "lora, some graphs kept, accumulated, clipped": {
        "lora": True, "graph_memory": 5e-4, "accumulate": 2, "clip": 0.05,
    },
    # A first forward that breaks off, and blocks that run again in backward, pass through the hooks of split
    # modules in an order of their own.
    "full, some graphs kept, accumulated, clipped, padded, checkpointed": {
        "lora": False, "graph_memory": 5e-4, "accumulate": 2, "clip": 0.05,
        "packs": False, "gradient_checkpointing": True,
    },
}  # fmt: skip
FULL, LORA, PADDED = CASES
RUNS = [
    (FULL, "one_sync", 2), (LORA, "one_sync", 3), (LORA, "sharded", 2), (PADDED, "sharded", 3),
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of very different lengths, and the same ones as positives of some and negatives of others."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    texts = [f"text {i} " + "word " * (i * 7 % 13) for i in range(30)]
    rows = [
        {"query": f"page {i}", "positive": texts[i], "negatives": [texts[(i + 1) % 30], texts[(i + 5) % 30]]}
        for i in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(folder: Path, model: Path, data: Path, case: dict, world: int) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    output = folder / f"of-{world}.pt"
    context = multiprocessing.get_context("forkserver")
    running = []
    for rank in map(str, range(world)):
        environment = {**common, "RANK": rank, "LOCAL_RANK": rank}
        arguments = (environment, output, model, data, case)
        process = context.Process(target=one_of_several.train, args=arguments, daemon=True)
        process.start()
        running.append(process)
    for process in running:
        process.join(180)
    ended = [process.exitcode for process in running]
    for process in running:
        process.kill()  # one that waits for another that failed
    assert ended == [0] * world
    return [torch.load(f"{output}.{rank}", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def alone(bert_folder, data, tmp_path_factory) -> Callable[[str], dict]:
    """What one process makes of a case, trained once."""

    @cache
    def found(name: str) -> dict:
        (result,) = train(tmp_path_factory.mktemp("alone"), bert_folder, data, CASES[name], 1)
        return result

    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy", "world"), RUNS)
def test_several_processes_train_as_one(
    bert_folder, data, tmp_path, alone, name: str, strategy: str, world: int
) -> None:
    several = train(tmp_path, bert_folder, data, {**CASES[name], "strategy": strategy}, world)
    alone = alone(name)
    assert len(alone["norms"]) == 5 and min(alone["norms"]) > 1e-3
    assert len({tuple(part["micro_batches"]) for part in several}) > 1  # counts need not agree
    for part in several:
        assert part["processes"] == world
        assert part["losses"] == pytest.approx(alone["losses"], rel=1e-9)
        assert part["norms"] == pytest.approx(alone["norms"], rel=1e-9)
        assert part["weights"].keys() == alone["weights"].keys()
        for key, weight in alone["weights"].items():
            assert (part["weights"][key] - weight).abs().max() < 1e-9, key
        if strategy == "sharded":  # tables whose rows do not come out even take a little more
            assert part["held_weights"] == pytest.approx(1 / world, rel=0.1)
            whole_moments = name == LORA  # adapters are small, and stay whole
            assert part["held_moments"] == pytest.approx(1 if whole_moments else 1 / world, rel=0.1)


def command(*words: str) -> None:
    """The console script, whose processes start the others themselves."""
    script = Path(sys.executable).parent / "lit-retrofit"
    done = subprocess.run(
        [script, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_line_on_two_devices(bert_folder, data, tmp_path) -> None:
    """`fit` starts the second process itself; both together log what one logs."""
    losses = {}
    for devices in (1, 2):
        output = tmp_path / f"on-{devices}"
        words = [
            "fit", "--model.encoder.model", str(bert_folder), "--model.encoder.dropout", "0",
            "--data.options.train", f"[{data}]", "--data.options.validation_share", "0.3",
            "--data.sampling.batch_size", "8", "--trainer.accelerator", "cpu", "--trainer.devices",
            str(devices), "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1",
            "--trainer.precision", "64-true", "--output", str(output), "--wandb", "false",
        ]  # fmt: skip
        if devices == 1:
            assert main(words) == 0
        else:
            command(*words, "--trainer.strategy", "one_sync")
        with (output / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        losses[devices] = [
            float(row[key]) for key in ("train/loss", "val/nDCG@10") for row in rows if row.get(key)
        ]
        assert (output / "checkpoints" / "last.ckpt").is_file()
        assert json.loads((output / "training.json").read_text())["steps"] == 4
    assert len(losses[1]) == 6
    assert losses[2] == pytest.approx(losses[1], rel=1e-5)  # as they stand in the log


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp"])
def test_the_shipped_configs_on_two_processes(bert_folder, data, tmp_path, config: str) -> None:
    """As they are, in bf16, but for the accelerator: the losses are those of one process."""
    configs = Path(__file__).parents[2] / "configs/trainer"
    words = [
        "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1", "--trainer.max_epochs", "1",
        "--model.encoder.model", str(bert_folder), "--model.encoder.dropout", "0",
        "--model.objective.temperature", "0.1", "--model.optimizer.learning_rate", "0.001",
        "--data.options.train", f"[{data}]", "--data.options.validation_share", "0.3",
        "--data.sampling.batch_size", "8", "--trainer.enable_progress_bar", "false", "--wandb", "false",
    ]  # fmt: skip

    def losses(name: str) -> list[float]:
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [float(row["train/loss"]) for row in rows if row.get("train/loss")]

    one = ["--config", str(configs / "cpu.yaml"), "--trainer.precision", "bf16-mixed"]
    assert main(["fit", *one, *words, "--output", str(tmp_path / "one")]) == 0
    command(
        "fit", "--config", str(configs / f"{config}.yaml"), *words,
        "--trainer.devices", "2", "--output", str(tmp_path / "two"),
    )  # fmt: skip
    assert len(losses("one")) == 2
    assert losses("two") == pytest.approx(losses("one"), rel=0.02)
    assert load_encoder(str(tmp_path / "two")).dimension == 32
