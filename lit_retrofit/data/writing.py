"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lit_retrofit.errors import UserError


@contextmanager
def new_text_file(path: Path, *, overwrite: bool) -> Iterator[TextIO]:
    """Opens a UTF-8 file beside ``path`` and gives it that name once it is written to the end.

    Args:
        path: the file to be; missing folders are made.
        overwrite: replace an existing file.

    Yields:
        The open file. If the body raises, nothing is left of it and an older file stays as it was.

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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); check the folder") from None
