"""What is done so far, in a folder beside the output: a run that was killed goes on from there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lit_retrofit.errors import UserError

_STATE = "state.json"


class Work:
    """The folder of one cleaning run: ``.OUTPUT.work``. Files in it appear whole or not at all.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Of a file in it."""
        return self.folder / name


@contextmanager
def open_work(output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[Work]:
    """Opens the run's folder, new or as an earlier run of the same settings left it, and removes it after.

    If the body raises, the folder stays, unless nothing was done yet. Work of other data is of no use, and is
    thrown away.

    Args:
        output: the file to be written.
        settings: in plain types, all that the work depends on: options, and as ``data`` the inputs, their
            sizes and times.
        overwrite: throw away what a run of other settings left, too.

    Raises:
        UserError: another process works there, a run of other settings on the same data left work, or the
            folder cannot be written.
    """
    folder = output.with_name(f".{output.name}.work")
    state = json.loads(json.dumps(settings))
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{output}: another process is cleaning into it; wait, or name another file"
        ) from None
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror or error}); check the folder"
        ) from None
    try:
        _prepare(folder, output, state, overwrite)
        finished = False
        try:
            yield Work(folder)
            finished = True
        finally:
            if finished or not any(folder.glob("*.npz")):
                shutil.rmtree(folder)
                Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _prepare(folder: Path, output: Path, state: dict[str, Any], overwrite: bool) -> None:
    known = _read_state(folder)
    if known == state:
        return
    if known is not None and known.get("data") == state["data"] and not overwrite:
        changed = ", ".join(sorted(name for name in state if known.get(name) != state[name]))
        raise UserError(
            f"{output}: an unfinished run with other settings ({changed}) left its work; run it with them to "
            "go on, or pass --overwrite to begin anew"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    partial = folder / f"{_STATE}.partial"
    partial.write_text(json.dumps(state), encoding="utf-8")
    partial.replace(folder / _STATE)


def _read_state(folder: Path) -> dict[str, Any] | None:
    if not folder.exists():
        return None
    try:
        return json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # killed before it was written: nothing was done then
        return {}


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays; the file appears once it is complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)
