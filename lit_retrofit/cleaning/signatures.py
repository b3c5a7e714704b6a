"""MinHash signatures of texts (by datasketch), and the bands by which similar ones are found."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from lit_retrofit.cleaning.folding import fold

VALUES = 128
QUERY_GRAM, DOCUMENT_GRAM = 3, 5  # characters of an n-gram: queries are short
_RECALL = 0.95
_PIECE = 1 << 16  # n-grams hashed at a time: a text of 10 MB needs 32 MB, not 5 GB
_SEED, _SCHEME = 1, "affine32"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
Signatures = NDArray[np.uint16]


def sign(texts: Sequence[str], gram: int) -> Signatures:
    """Signs texts as `fold` makes them.

    Args:
        texts: any text with something to read in it.
        gram: characters of an n-gram.

    Returns:
        (texts, `VALUES`) uint16: the share of equal values of two rows estimates the Jaccard similarity of
        their sets of n-grams, with a standard deviation of 0.035 at 0.8. Of each 32-bit minimum the lower
        half is kept: two differing minima agree in it once in 65,536 times.
    """
    # The n-grams are hashed already: datasketch takes the numbers as they are.
    first = MinHash(VALUES, seed=_SEED, scheme=_SCHEME, hashfunc=index)
    signatures = np.empty((len(texts), VALUES), np.uint16)
    for row, text in enumerate(texts):
        minhash = MinHash(VALUES, seed=_SEED, scheme=_SCHEME, hashfunc=index, permutations=first.permutations)
        grams = n_grams(f" {fold(text)} ", gram)
        for start in range(0, len(grams), _PIECE):
            minhash.update_batch(grams[start : start + _PIECE].tolist())
        signatures[row] = minhash.hashvalues.astype(np.uint16)
    return signatures


def n_grams(text: str, size: int) -> NDArray[np.uint32]:
    """The set of a text's character n-grams, hashed to 32 bits; a shorter text is one of its own."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    size = min(size, len(codes))
    count = len(codes) - size + 1
    hashed = np.zeros(count, np.uint64)
    for i in range(size):
        # Multiplied last: the upper half, which is kept, must depend on the last character, too.
        hashed = (hashed + codes[i : i + count]) * _MULTIPLIER
        hashed ^= hashed >> np.uint64(29)
    return np.unique((hashed >> np.uint64(32)).astype(np.uint32))


def band_rows(threshold: float, texts: int) -> int:
    """Values of each text in a band: the most with which 95 % of the pairs just at the threshold are found.

    Two records agree in a band of r values of each of n texts with probability s^(n·r), and in at least one
    of the b = `VALUES` // r bands with 1 − (1 − s^(n·r))^b (Leskovec et al., Mining of Massive Datasets,
    section 3.4).

    Args:
        threshold: the similarity s of each text.
        texts: n, that must all be similar.
    """
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold ** (texts * rows)) ** (VALUES // rows) >= _RECALL:
            return rows
    return 1


def band_keys(signatures: Sequence[Signatures], band: int, rows: int) -> NDArray[np.uint64]:
    """One number for each record's values in a band.

    Args:
        signatures: of each compared text, (records, `VALUES`); may be memory-mapped.
        band: number of the band.
        rows: values of each text in a band.

    Returns:
        (records,) equal where all these values are; rarely elsewhere.
    """
    keys = np.zeros(len(signatures[0]), np.uint64)
    for part in signatures:
        for column in range(band * rows, (band + 1) * rows):
            keys = (keys + part[:, column]) * _MULTIPLIER
            keys ^= keys >> np.uint64(29)
    return keys


def similarity(first: Signatures, second: Signatures) -> NDArray[np.float64]:
    """The estimated Jaccard similarity of two rows, or of rows pairwise."""
    return np.asarray((first == second).mean(axis=-1))
