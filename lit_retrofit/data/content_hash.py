"""Whether a source still holds what it held: a short hash of its records, or of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from lit_retrofit.data.records import Record

_TAIL = 1 << 16
"""Bytes at a file's end. There parquet says where in the file each column begins, and what values it has."""
_DIGEST = 8


def hash_records(records: Sequence[Record]) -> str:
    """Of every query and its first positive, in their order: what re-mining and joining leave as it is."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for record in records:
        for text in (record.query, record.positives[0].text):
            digest.update(text.encode(errors="surrogatepass"))
            digest.update(b"\0")
    return digest.hexdigest()


def hash_files(paths: Iterable[Path], kept: bytes = b"") -> str:
    """Of each file's size and end: reading all of them would take as long as an epoch.

    Args:
        paths: in their order.
        kept: which rows of them are used, where it is not all.
    """
    digest = hashlib.blake2b(kept, digest_size=_DIGEST)
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            digest.update(size.to_bytes(8, "little"))
            digest.update(file.read())
    return digest.hexdigest()
