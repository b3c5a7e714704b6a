"""At most so many records of each language: which stay is chosen by a seed, what goes is counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.data.records import Record
from lit_retrofit.data.tables import Block, read_block

UNKNOWN = "unknown"


def cap_records(records: Sequence[Record], most: int, seed: int) -> tuple[list[Record], dict[str, int]]:
    """Leaves at most `most` records of each language.

    Returns:
        The records that stay, in their order, and how many each capped language had.
    """
    names: dict[str, int] = {}
    languages = [names.setdefault(record.language or UNKNOWN, len(names)) for record in records]
    kept, capped = choose_capped(np.array(languages, np.int32), names, most, seed)
    return [record for record, stays in zip(records, kept.tolist(), strict=True) if stays], capped


def cap_rows(
    blocks: Sequence[Block], most: int, seed: int, column: str = "language"
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """The same for the rows of tables; reads the column of their languages alone.

    Returns:
        (rows,) which stay, the blocks one after another, and how many each capped language had.
    """
    names: dict[str, int] = {}
    languages: list[NDArray[np.int32]] = []
    for block in blocks:
        for batch in read_block(block, [column]):
            encoded = batch.column(0).cast("string").dictionary_encode()
            found = [*encoded.dictionary.to_pylist(), None]  # the last for null
            numbers = [names.setdefault((name or "").strip() or UNKNOWN, len(names)) for name in found]
            indices = encoded.indices.fill_null(len(found) - 1).to_numpy(zero_copy_only=False)
            languages.append(np.array(numbers, np.int32)[indices])
    return choose_capped(np.concatenate(languages), names, most, seed)


def choose_capped(
    languages: NDArray[np.int32], names: dict[str, int], most: int, seed: int
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which records stay.

    Args:
        languages: (records,) the number of each one's language.
        names: the number of each language.
        most: records of a language that may stay.
        seed: of the choice.

    Returns:
        (records,) true for those that stay; and how many each capped language had.
    """
    kept = np.ones(len(languages), bool)
    capped: dict[str, int] = {}
    rng = np.random.default_rng(seed)
    for name in sorted(names):
        rows = np.flatnonzero(languages == names[name])
        if len(rows) > most:
            kept[rng.permutation(rows)[most:]] = False
            capped[name] = len(rows)
    return kept, capped
