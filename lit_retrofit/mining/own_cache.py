"""The folder beside the output that keeps embeddings and scores until the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lit_retrofit.errors import UserError
from lit_retrofit.retrieval.store import remove_cache


@contextmanager
def own_cache(output: Path) -> Iterator[Path]:
    """Yields a folder that one process alone works in, and removes it when the body is done.

    If the body raises or the process is killed, what it kept stays for the next run. Two runs must not share
    the folder: the first to end would take it from under the other.

    Args:
        output: of the run; the folder lies beside it.

    Raises:
        UserError: another process works in it, or it cannot be made.
    """
    folder = output.with_name(f"{output.stem}.embeddings")
    lock = FileLock(folder / "run.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{output}: another process is mining for it; wait for that one, or name another output"
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder}: no embeddings can be kept here ({error.strerror}); give another folder as cache"
        ) from None
    try:
        yield folder
        remove_cache(folder)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # it still holds what a stopped run kept
            folder.rmdir()
