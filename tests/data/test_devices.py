"""Under a Lightning Trainer with two processes, each gets its own part of every batch and of every text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.data.options import DataOptions, SamplingOptions

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from lightning import LightningModule, Trainer
from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.data.options import DataOptions, SamplingOptions


class Letters:
    pad_id = 0

    def of(self, role):
        return self

    def __call__(self, texts, role, max_length=None, prompt=None):
        return [[{"query": 1, "document": 2}[role], *map(ord, text)][:max_length] for text in texts]


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.rows = [], [[], []]

    def training_step(self, batch, index):
        self.seen.append(list(batch.record_ids))
        return self.weight.sum()

    def validation_step(self, batch, index, dataloader_idx=0):
        self.rows[dataloader_idx] += batch.rows.tolist()

    def on_fit_end(self):
        name = type(self.trainer.train_dataloader).__name__
        found = {"seen": self.seen, "rows": self.rows, "loader": name}
        Path(sys.argv[2] + f".{self.global_rank}").write_text(json.dumps(found))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


if __name__ == "__main__":
    data = RetrievalData(
        DataOptions(train=(sys.argv[1],), validation_share=0.3, token_budget=40, workers=int(sys.argv[3])),
        SamplingOptions(6), tokenize=Letters(),
    )
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=2, num_sanity_val_steps=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, check_val_every_n_epoch=2,
    )
    trainer.fit(Recorder(), datamodule=data)
"""


@pytest.fixture
def train(tmp_path: Path) -> str:
    rows = [{"query": f"q{i}", "positive": f"text {i}", "id": f"r{i}"} for i in range(40)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1])
def test_a_trainer_with_two_processes_leaves_the_loaders_alone(tmp_path, train, workers: int) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), train, str(tmp_path / "out"), str(workers)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"out.{rank}").read_text()) for rank in (0, 1))
    assert first["loader"] == "DrawLoader"

    alone = RetrievalData(DataOptions(train=(train,), validation_share=0.3), SamplingOptions(6))
    alone.setup("fit")
    alone.tokenize = lambda texts, role, max_length=None: [[ord(c) for c in text] for text in texts]
    alone.tokenize.of = lambda role: PADS  # type: ignore[attr-defined]
    loader = alone.train_dataloader()
    expected = [list(batch.record_ids) for _ in range(2) for batch in loader]
    assert [a + b for a, b in zip(first["seen"], second["seen"], strict=True)] == expected
    assert {len(batch) for batch in first["seen"] + second["seen"]} == {3}
    for part, texts in zip((0, 1), (alone.validation_set.queries, alone.validation_set.corpus), strict=True):
        rows = sorted(chain(first["rows"][part], second["rows"][part]))
        assert rows == [*range(len(texts))]
        assert not set(first["rows"][part]) & set(second["rows"][part])


PADS = SimpleNamespace(pad_id=0)


def test_loaders_that_a_trainer_would_not_give_another_sampler(train) -> None:
    """Lightning puts a DistributedSampler into every DataLoader; these are none."""
    data = RetrievalData(DataOptions(train=(train,), validation_share=0.3), SamplingOptions(6))
    data.setup("fit")
    data.tokenize = lambda texts, role, max_length=None: [[1] for _ in texts]
    data.tokenize.of = lambda role: PADS  # type: ignore[attr-defined]
    loaders = [data.train_dataloader(), *data.val_dataloader()]
    assert len(loaders) == 3
    assert not any(isinstance(loader, DataLoader) for loader in loaders)
