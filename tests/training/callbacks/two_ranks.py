"""One of two processes of a Trainer under DDP (gloo); torchrun's variables say which. Not a test module.

python two_ranks.py FOLDER: what each part found goes to FOLDER/PART/RANK.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from lit_retrofit.data.batching import TokenBatch
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import Interrupted, UserError
from lit_retrofit.training.callbacks import Interruption, LossGuard, RetrievalValidation
from lit_retrofit.training.faults import faults_in_one_line

RANK = int(os.environ["RANK"])
TEXTS = 11


def retrieval_set() -> RetrievalSet:
    return RetrievalSet(
        "tiny",
        tuple(Query(f"q{i}", f"q{i}") for i in range(TEXTS)),
        tuple(Document(f"d{i}", f"d{i}") for i in range(TEXTS)),
        {f"q{i}": {f"d{i}": 1} for i in range(TEXTS)},
    )


def vectors(role: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(role)
    noise = torch.randn(TEXTS, 8, generator=generator)
    shared = torch.randn(TEXTS, 8, generator=torch.Generator().manual_seed(9))
    return torch.nn.functional.normalize(shared + noise, dim=1)


class Texts(torch.utils.data.Dataset):
    """Micro-batches of this rank: queries 3 + 2 batches, documents all on the second rank or twice."""

    def __init__(self, parts: list[list[int]]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, at: int) -> TokenBatch:
        rows = torch.tensor(self.parts[at])
        return TokenBatch(rows[:, None], torch.ones(len(rows), 1), rows)


class Data(LightningDataModule):
    validation_set = retrieval_set()


class Lookup(LightningModule):
    """Embeds a text by its number; trains one weight."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        if self.part == "nan" and RANK == 1 and batch_idx == 2:
            return self.weight.sum() * torch.nan
        if self.part == "signal" and RANK == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.part == "death" and RANK == 1 and batch_idx == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.weight.sum()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return vectors(dataloader_idx)[batch.rows]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Batch:
    """What the callbacks read of a training batch."""

    def __init__(self, ids) -> None:
        self.record_ids = ids

    def to(self, device, non_blocking=False):
        return self


def trainer(folder: Path, *callbacks, **options) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, default_root_dir=folder, callbacks=list(callbacks), **options,
    )  # fmt: skip


def validate(folder: Path) -> object:
    """Uneven shares: five rows against six in other numbers of batches, documents on one rank alone."""
    queries = [[[10, 3], [1]], [[0, 2, 4, 5], [6], [7, 8], [9]]][RANK]
    documents = [[[row] for row in range(TEXTS)], [[0]]][RANK]
    loaders = [DataLoader(Texts(parts), batch_size=None) for parts in (queries, documents)]
    tester = trainer(folder, RetrievalValidation(), enable_checkpointing=False)
    tester.datamodule = Data()  # type: ignore[attr-defined]
    found = []
    for part in (queries, queries[:1]):  # then without some of the queries
        loaders[0] = DataLoader(Texts(part), batch_size=None)
        try:
            found.append(tester.validate(Lookup("validate"), loaders, verbose=False)[0])
        except UserError as error:
            found.append(str(error))
    return found


def train(folder: Path) -> object:
    batches = [Batch((f"rank {RANK} step {step}",)) for step in range(4)]
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    try:
        with faults_in_one_line():
            trainer(folder, LossGuard(folder), Interruption(folder), max_epochs=1).fit(
                Lookup(folder.name), loader
            )
    except (UserError, Interrupted) as error:
        return [type(error).__name__, str(error)]
    return "ended"


if __name__ == "__main__":
    for part in ("validate", "signal", "nan", "death"):
        folder = Path(sys.argv[1]) / part
        folder.mkdir(exist_ok=True)
        found = validate(folder) if part == "validate" else train(folder)
        (folder / f"{RANK}.json").write_text(json.dumps(found))
