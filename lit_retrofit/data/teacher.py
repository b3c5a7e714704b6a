"""Embeddings of the training texts by another model (a teacher or a guide), looked up by text.

A folder holds, for each role, ``query.embeddings.npy``: (texts, T) float16 or float32, and
``query.keys.npy``: (texts,) uint64, ascending, the hash of each row's text; likewise ``document.…``. Both
are memory-mapped: workers share them, and only the rows of a batch are read. No pickle is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_retrofit.errors import UserError

Role = Literal["query", "document"]
ROLES: tuple[Role, Role] = ("query", "document")


def write_teacher(folder: Path, role: Role, texts: Sequence[str], embeddings: NDArray[Any]) -> None:
    """Writes a model's embeddings of the texts of one role.

    Args:
        folder: made if missing; files of this role in it are replaced.
        role: of the texts.
        texts: as the records have them, without any prompt; a text may come several times.
        embeddings: (texts, T) float16 or float32, a row for each text.

    Raises:
        ValueError: the shapes do not match, or the type is another one.
    """
    if (
        embeddings.ndim != 2
        or len(embeddings) != len(texts)
        or embeddings.dtype not in (np.float16, np.float32)
    ):
        raise ValueError(f"embeddings: {embeddings.shape} {embeddings.dtype} for {len(texts)} texts")
    folder.mkdir(parents=True, exist_ok=True)
    keys, rows = np.unique(_keys(texts), return_index=True)
    np.save(_path(folder, role, "embeddings"), embeddings[rows], allow_pickle=False)
    np.save(_path(folder, role, "keys"), keys, allow_pickle=False)


class Teacher:
    """Looks texts up in a folder that `write_teacher` wrote.

    Args:
        folder: with the files of both roles.

    Raises:
        UserError: a file is missing or holds something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = {
            role: (_load(folder, role, "keys"), _load(folder, role, "embeddings")) for role in ROLES
        }
        widths = set()
        for role, (keys, embeddings) in self._parts.items():
            if keys.shape != embeddings.shape[:1] or embeddings.ndim != 2 or keys.dtype != np.uint64:
                raise UserError(f"{folder}: the files of role {role} do not match; write them again")
            widths.add(embeddings.shape[1])
        if len(widths) > 1:
            raise UserError(
                f"{folder}: queries and documents have vectors of different lengths; write both anew"
            )

    def look_up(self, texts: Sequence[str], role: Role) -> Tensor:
        """(texts, T) float32, the teacher's embedding of each text.

        Raises:
            UserError: a text has none.
        """
        keys, embeddings = self._parts[role]
        wanted = _keys(texts)
        rows = np.searchsorted(keys, wanted)
        found = keys[np.minimum(rows, len(keys) - 1)] == wanted
        if not found.all():
            text = " ".join(texts[int(np.flatnonzero(~found)[0])].split())
            raise UserError(
                f"{self.folder}: no embedding of the {role} '{text:.80}'; write the teacher's embeddings of "
                "all training texts"
            )
        return torch.from_numpy(np.asarray(embeddings[rows], np.float32))


def _keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """A hash of each text; with 64 bits, two of ten million texts share one with probability 3e-6."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _path(folder: Path, role: Role, part: str) -> Path:
    return folder / f"{role}.{part}.npy"


def _load(folder: Path, role: Role, part: str) -> NDArray[Any]:
    path = _path(folder, role, part)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be read as a teacher's {part} ({reason:.150}); see data.options.teacher"
        ) from None
