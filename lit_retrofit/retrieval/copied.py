"""Queries that stand word by word in their positive: `clean` drops them, `inspect` counts them."""

from __future__ import annotations

from lit_retrofit.data.records import Record
from lit_retrofit.retrieval.words import normalise, tokenize

COPIED_WORDS = 5  # fewer may well be a title


def find_copied(record: Record, least: int) -> tuple[int, int] | None:
    """Whether a query of at least so many words stands word by word in one of its positives.

    Returns:
        The query's words (pairs of characters in CJK and Thai), and the number of the positive, from 1.
    """
    words = tokenize(record.query)
    if len(words) < least:
        return None
    query = f" {' '.join(words)} "
    for number, positive in enumerate(record.positives, 1):
        # Most texts lack one of the words: then there is no need to cut them into words, which takes long.
        text = normalise(positive.text)
        if all(word in text for word in words) and query in f" {' '.join(tokenize(positive.text))} ":
            return len(words), number
    return None
