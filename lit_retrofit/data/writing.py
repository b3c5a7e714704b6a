"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import psutil

from lit_retrofit.errors import UserError

_PARTIAL = ".partial"


@contextmanager
def new_text_file(path: Path, *, overwrite: bool) -> Iterator[TextIO]:
    """Opens a UTF-8 file beside ``path`` and gives it that name once it is written to the end.

    Args:
        path: the file to be; missing folders are made.
        overwrite: replace an existing file.

    Yields:
        The open file. If the body raises, nothing is left of it and an older file stays as it was. What a
        killed process of this machine left of the same file is removed.

    Raises:
        UserError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    with (
        new_file(path, overwrite=overwrite) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """The same for files that a library writes: yields the path to write to.

    Raises:
        UserError: as ``new_text_file``.
    """
    if path.is_dir():
        raise UserError(f"{path}: this is a directory; name a file to write")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: the file exists; pass --overwrite to replace it, or name another")
    partial = _partial(path, str(os.getpid()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); check the folder") from None


def _partial(path: Path, process: str) -> Path:
    # With the host: in a shared folder, another machine's process is not one of those that run here.
    return path.with_name(f".{path.name}.{platform.node()}.{process}{_PARTIAL}")


def _remove_leftovers(path: Path) -> None:
    """Removes what processes of this machine that no longer run have left of a file."""
    before = _partial(path, "").name.removesuffix(_PARTIAL)
    for left in path.parent.glob(f"{glob.escape(before)}*{_PARTIAL}"):
        process = left.name.removeprefix(before).removesuffix(_PARTIAL)
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            with suppress(PermissionError):  # another user's, whose next run may remove it
                left.unlink(missing_ok=True)
