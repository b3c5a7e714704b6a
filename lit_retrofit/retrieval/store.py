"""Embeddings on disk, memory-mapped, found by their text: what was embedded once is not embedded again.

A cache folder holds one folder per way of embedding, named by the hash of its `EmbeddingKey`. In it
``keys.bin`` has 16 bytes for each row, the hash of its text, and ``vectors.bin`` the rows, float32, in the
same order; both only ever grow at their ends. A row counts once its key is written, which is after its
vector: a process may be killed at any moment, and several may write at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.model.device import Precision, autocast_dtype
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.fingerprint import fingerprint
from lit_retrofit.model.tokenizer import Role

FORMAT = 1
KEY_BYTES = 16
"""128 bits: among a billion texts two share a hash with probability 1e-21."""
COPIED_ROWS = 65536
"""Rows copied at a time where a corpus does not lie in the store as it is wanted."""

Digests = NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Everything that an embedding depends on beside its text.

    Attributes:
        model: `lit_retrofit.model.fingerprint.fingerprint` of the encoder.
        role: query or document.
        prompt: what is put before every text.
        pooling: mean, cls or last.
        normalise: whether vectors have length one.
        max_length: tokens kept of a text.
        precision: the type computed in: float32, bfloat16 or float16.
        dimension: of a vector.
    """

    model: str
    role: Role
    prompt: str
    pooling: str
    normalise: bool
    max_length: int
    precision: str
    dimension: int

    @classmethod
    def of(cls, encoders: Encoders, role: Role, precision: Precision) -> EmbeddingKey:
        """The key of what the role's encoder makes of its texts, on the device it is on."""
        encoder = encoders.of(role)
        return cls(
            model=fingerprint(encoder),
            role=role,
            prompt=encoder.tokenizer.prompts[role],
            pooling=encoder.options.pooling or "mean",
            normalise=encoder.normalise,
            max_length=encoder.tokenizer.max_lengths[role],
            precision=str(autocast_dtype(precision, encoder.device) or torch.float32).removeprefix("torch."),
            dimension=encoder.dimension,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """As they are written beside the vectors, with the format's number."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def folder(self) -> str:
        """The folder's name in the cache."""
        return hashlib.sha256(json.dumps(self.fields, sort_keys=True).encode()).hexdigest()[:32]


def digests_of(texts: Sequence[str]) -> Digests:
    """(texts,), the hash of each text as 16 bytes."""
    joined = b"".join(hashlib.blake2b(t.encode(), digest_size=KEY_BYTES).digest() for t in texts)
    return np.frombuffer(joined, dtype=f"S{KEY_BYTES}")


class EmbeddingStore:
    """The embeddings of one key.

    Args:
        cache: the folder of all keys; made if missing.
        key: what the embeddings depend on.

    Raises:
        UserError: the cache cannot be written, or the folder of the key says that it holds something else.
    """

    def __init__(self, cache: Path, key: EmbeddingKey) -> None:
        self.key = key
        self.folder = cache / key.folder
        try:
            (self.folder / "claims").mkdir(parents=True, exist_ok=True)
            for name in ("keys.bin", "vectors.bin"):
                (self.folder / name).touch()
        except OSError as error:
            raise UserError(
                f"{cache}: no embeddings can be kept here ({error.strerror}); give another folder as cache"
            ) from None
        self._check_key()

    def __len__(self) -> int:
        """How many rows are complete now; other processes may be adding to them."""
        keys, vectors = (os.stat(self.folder / name).st_size for name in ("keys.bin", "vectors.bin"))
        return min(keys // KEY_BYTES, vectors // self._row_bytes)

    def keys(self, start: int = 0) -> Digests:
        """The hashes of the texts of the rows from `start` on."""
        with (self.folder / "keys.bin").open("rb") as file:
            file.seek(start * KEY_BYTES)
            content = file.read(max(0, len(self) - start) * KEY_BYTES)
        return np.frombuffer(content, dtype=f"S{KEY_BYTES}")

    def append(self, digests: Digests, vectors: NDArray[np.float32]) -> None:
        """Adds rows. A text that is there already, or comes twice, only takes up space.

        Args:
            digests: (rows,) hashes of their texts.
            vectors: (rows, dimension) float32.

        Raises:
            UserError: the disk is full.
        """
        if vectors.shape != (len(digests), self.key.dimension) or vectors.dtype != np.float32:
            raise ValueError(f"vectors: {vectors.shape} {vectors.dtype} for {len(digests)} texts")
        self.check_space(len(digests))
        with FileLock(self.folder / "append.lock"):
            rows = len(self)
            # A power failure may have left keys without their vectors, which must not get those of others.
            os.truncate(self.folder / "keys.bin", rows * KEY_BYTES)
            _write_at(self.folder / "vectors.bin", rows * self._row_bytes, np.ascontiguousarray(vectors))
            _write_at(self.folder / "keys.bin", rows * KEY_BYTES, digests)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Takes a piece of work for this process alone; False if another process has it.

        A claim ends with its process, however that ends.
        """
        lock = FileLock(self.folder / "claims" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """The vectors of some rows, (rows, dimension) float32, memory-mapped; not to be written to.

        Rows that lie one after the other are read where they are. Others are copied in their order to a file
        in the same folder that has no name and vanishes with the tensor.

        Raises:
            UserError: the disk is full.
        """
        if not len(rows):
            return torch.empty(0, self.key.dimension)
        stored = self._mapped(self.folder / "vectors.bin", len(self))
        if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return torch.from_numpy(stored[rows[0] : rows[0] + len(rows)])
        self.check_space(len(rows))
        with tempfile.TemporaryFile(dir=self.folder) as file:
            for start in range(0, len(rows), COPIED_ROWS):
                file.write(stored[rows[start : start + COPIED_ROWS]].data)
            file.flush()
            return torch.from_numpy(self._mapped(file, len(rows)))

    def check_space(self, rows: int) -> None:
        """Refuses work whose result the disk cannot take.

        Raises:
            UserError: there is no room for as many rows.
        """
        needed, free = rows * (self._row_bytes + KEY_BYTES), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder.parent}: {rows} embeddings need {needed / 1e9:.1f} GB of disk and "
                f"{free / 1e9:.1f} GB are free; make room, or give another folder as cache"
            )

    @property
    def _row_bytes(self) -> int:
        return 4 * self.key.dimension

    def _mapped(self, file: Any, rows: int) -> NDArray[np.float32]:
        # Copy on write, so that torch takes it for writable and does not warn; nothing reaches the file.
        return np.memmap(file, np.float32, "c", shape=(rows, self.key.dimension))

    def _check_key(self) -> None:
        path = self.folder / "key.json"
        if not path.exists():
            with new_text_file(path, overwrite=True) as file:
                json.dump(self.key.fields, file, indent=1, ensure_ascii=False)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != self.key.fields:
            raise UserError(
                f"{path}: the embeddings beside it are another model's or damaged; remove {self.folder}"
            )


def _write_at(path: Path, offset: int, content: NDArray[Any]) -> None:
    """Writes to a file from an offset on, which becomes its end, and on to the disk."""
    try:
        with path.open("r+b") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(content.tobytes())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room, or give another folder as cache"
        ) from None


def remove_cache(cache: Path) -> None:
    """Removes the stores of a cache, and the folder itself if nothing else is in it."""
    for key in cache.glob("*/key.json"):
        shutil.rmtree(key.parent, ignore_errors=True)
    with suppress(OSError):
        cache.rmdir()
