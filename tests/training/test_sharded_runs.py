"""Runs of the command line on split weights: what they leave is what one device would have left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.model.loading import load_encoder

ROOT = Path(__file__).parents[2]


def words(model: Path, data: Path, output: Path, epochs: int, *extra: str) -> list[str]:
    return [
        "fit", "--config", str(ROOT / "configs/trainer/fsdp.yaml"), "--trainer.accelerator", "cpu",
        "--trainer.precision", "32-true", "--config", str(ROOT / "configs/callbacks/ema.yaml"),
        "--model.encoder.model", str(model), "--model.encoder.dropout", "0",
        "--model.objective.temperature", "0.1", "--model.objective.learn_temperature", "true",
        "--model.optimizer.schedule", "constant", "--model.optimizer.warmup", "0",
        "--model.optimizer.learning_rate", "0.003",
        "--data.options.train", f"[{data}]", "--data.options.validation_share", "0.3",
        "--data.options.token_budget", "60", "--data.sampling.batch_size", "6",
        "--trainer.max_epochs", str(epochs), "--trainer.enable_progress_bar", "false",
        "--wandb", "false", "--output", str(output), *extra,
    ]  # fmt: skip


def content(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def on_two_devices(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lit-retrofit", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_one_device_two_devices_and_one_again_train_as_one_alone(bert_folder, tmp_path) -> None:
    """Weights, their average and the optimizer's state go through checkpoints in both directions."""
    data = tmp_path / "train.jsonl"
    rows = [{"query": f"page {i}", "positive": f"text {i} " + "word " * (i % 7)} for i in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone = ("--trainer.strategy", "auto")

    def fit(name: str, epochs: int, *extra: str) -> list[str]:
        return words(bert_folder, data, tmp_path / name, epochs, *extra)

    def from_(name: str) -> tuple[str, str]:
        return "--ckpt_path", str(tmp_path / name / "checkpoints" / "last.ckpt")

    assert main(fit("whole", 3, *alone)) == 0
    assert main(fit("first", 1, *alone)) == 0
    done = on_two_devices(*fit("second", 2, "--trainer.devices", "2", *from_("first")))
    assert done.returncode == 0, done.stderr[-2500:]
    assert main(fit("third", 3, *alone, *from_("second"))) == 0

    whole, third, second = (content(tmp_path / name) for name in ("whole", "third", "second"))
    assert whole["global_step"] == third["global_step"] == 6 and second["global_step"] == 4
    for key in ("state_dict", "live_weights"):
        assert whole[key].keys() == third[key].keys() == second[key].keys()
        for name, weight in whole[key].items():
            if name.endswith("key.bias"):  # its gradient is 0 but for rounding, which AdamW blows up
                continue
            assert (third[key][name] - weight).abs().max() < 1e-6, name
            assert (second[key][name] - weight).abs().max() < 0.1 and second[key][name].shape == weight.shape
    moments, resumed = (saved["optimizer_states"][0]["state"] for saved in (whole, third))
    assert moments.keys() == resumed.keys()
    for number, state in moments.items():
        assert torch.allclose(state["exp_avg"], resumed[number]["exp_avg"], rtol=1e-4, atol=1e-6)
        assert state["step"] == resumed[number]["step"] == 6
    cards = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("whole", "third")]
    measured = [card["metrics"]["val/nDCG@10"] for card in cards]
    assert measured[0] == pytest.approx(measured[1]) and measured[0] > 0
    loaded = load_encoder(
        str(tmp_path / "second" / "checkpoints" / "last.ckpt")
    )  # as `evaluate` and `export` do
    for name, weight in loaded.named_parameters():
        if weight.requires_grad:
            assert torch.equal(weight, second["state_dict"][f"encoder.{name}"])
