"""Checkpoints that appear whole or not at all, and are read without running code."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lit_retrofit.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint and gives it the name once every byte is on the disk.

    Lightning's own writes to the system's temporary folder and moves the file: from another file system
    that is a copy over the old checkpoint, which a full disk or a power failure cuts short, and nothing is
    flushed. It also holds the whole file in memory first.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Saves.

        Raises:
            UserError: it cannot be written; an older checkpoint of that name is as it was.
        """
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")  # one name: a killed process leaves at most one
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _flush_folder(path.parent)
        except (OSError, RuntimeError) as error:  # torch's writer may wrap the system's error in its own
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:150]
            kept = "; the checkpoint of before is unharmed" if path.exists() else ""
            raise UserError(
                f"{path}: cannot be written ({reason}){kept}; check the disk's free space"
            ) from error
        finally:
            with suppress(OSError):  # what has gone wrong is told already
                partial.unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = lambda storage, location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Loads tensors and plain values; anything else that a file may hold is refused, not run."""
        return super().load_checkpoint(path, map_location, weights_only=True)


def _flush_folder(folder: Path) -> None:
    """The new name, too, outlives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
