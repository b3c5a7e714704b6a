"""The output folder of a run: which files are its own, and that it does not mix with an earlier one."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.training.callbacks import (
    EmbeddingWriter,
    HardestNegatives,
    LossGuard,
    Remine,
    TrainingCard,
)

# What a run writes; `--overwrite` removes these and nothing else.
WRITTEN = (
    "config.yaml",
    "checkpoints",
    "metrics.csv",
    "hparams.yaml",
    "wandb",
    TrainingCard.FILE,
    EmbeddingWriter.FILE,
    HardestNegatives.FILE,
    LossGuard.FILE,
    Remine.FOLDER,
)


def prepare_output(folder: Path, overwrite: bool) -> None:
    """Makes sure that a run does not mix with an earlier one. Other files may be there.

    Raises:
        UserError: the folder holds a run and `overwrite` is off.
    """
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give a folder with --output")
    if overwrite:
        for name in WRITTEN:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    # W&B's logger begins first: after a mistake that ends the run before its data is read it is all there is.
    found = next((name for name in WRITTEN if name != "wandb" and (folder / name).exists()), None)
    if found is not None:
        last = folder / "checkpoints" / "last.ckpt"
        go_on = f"go on from it with --ckpt_path {shlex.quote(str(last))}, " if last.exists() else ""
        raise UserError(
            f"{folder}: already holds a run ({found}); give another --output, {go_on}or replace it with "
            "--overwrite"
        )


def prepare_embeddings(folder: Path, overwrite: bool) -> None:
    """Makes sure that `predict` writes over no embeddings unasked.

    Raises:
        UserError: there are some and `overwrite` is off.
    """
    path = folder / EmbeddingWriter.FILE
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already there; give another --output or replace it with --overwrite")


def of_this_trial(output: Path) -> Path:
    """In a sweep of W&B's agent, a folder of each run's own: its trials all have the same --output."""
    run = os.environ.get("WANDB_RUN_ID")
    return output / run if run and os.environ.get("WANDB_SWEEP_ID") else output
