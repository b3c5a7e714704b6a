"""What share of the k best documents the lane bins are expected to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable

SLOTS = 4096
"""Slots of each query among which the documents of a chunk are dealt out; each keeps its best."""
LEAST_SLOTS_PER_RANK = 8
"""The approximate mode refuses a k above a share of 1 / 8 of the slots: its recall could fall below 94 %."""


def slot_sizes(documents: int, slots: int) -> list[tuple[int, int]]:
    """(number of slots, documents in each) for documents dealt out one after the other."""
    size, larger = divmod(documents, slots)
    return [(larger, size + 1), (slots - larger, size)]


def expected_recall(slots: Iterable[tuple[int, int]], k: int) -> float:
    """Expected share of the k best documents that survive when every slot keeps only its best document.

    A slot with at least one of the k best keeps one of them, so the recall is the number of slots that the
    k best documents occupy, divided by k. The assumption: the k best are any k of the documents with equal
    probability, that is, a document's score says nothing about its place in the corpus. Then a slot of m of
    the N documents holds none of them with the hypergeometric probability C(N - m, k) / C(N, k), and::

        recall = 1/k · Σ over slots (1 - C(N - m, k) / C(N, k))

    For m > 1 and L = N / m slots this is 1 - (k - 1) / 2L to first order in k / L.

    Args:
        slots: (number of slots, documents m in each).
        k: 1 … N.
    """
    slots = [(count, size) for count, size in slots if count and size]
    documents = sum(count * size for count, size in slots)
    k = min(k, documents)
    if k == 0 or all(size == 1 for _, size in slots):
        return 1.0
    return min(1.0, sum(count * (1 - _none(documents, size, k)) for count, size in slots) / k)


def _none(documents: int, size: int, k: int) -> float:
    """C(N - m, k) / C(N, k): a slot of m documents holds none of the k best."""
    if documents - size < k:
        return 0.0
    # The product over the k best loses no digits, as differences of large log-gamma values would.
    return math.exp(sum(math.log1p(-size / (documents - rank)) for rank in range(k)))
