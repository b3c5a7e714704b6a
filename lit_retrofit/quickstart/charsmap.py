"""Packs a code-point map into the double-array trie that SentencePiece normalisers read.

The layout is darts-clone's (Yata et al.), as `tokenizers.normalizers.Precompiled` expects it: a
little-endian u32 with the trie's size in bytes, the trie's u32 units, then the replacement strings,
each ended by a NUL byte; a key's value is the offset of its replacement.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_LEAF = 1 << 31
_HAS_LEAF = 1 << 8
_MAX_OFFSET = 1 << 21


def pack_charsmap(replacements: Mapping[str, str]) -> bytes:
    """Returns the precompiled form of ``{text: replacement}``; keys are non-empty and free of NUL."""
    values, blob = {}, bytearray()
    for key in sorted(replacements):
        values[key.encode()] = len(blob)
        blob += replacements[key].encode() + b"\0"
    units = _double_array(_trie(values))
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + bytes(blob)


def _trie(values: Mapping[bytes, int]) -> dict:
    """Nested dictionaries byte → node; the key 0 holds a node's value."""
    root: dict = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value
    return root


def _double_array(root: dict) -> list[int]:
    units: dict[int, int] = {0: 0}
    bases: set[int] = set()  # a reader checks labels only: two nodes with one base would share children
    free = 1  # nothing below is free for a new family of children
    stack = [(0, root)]
    while stack:
        position, node = stack.pop()
        labels = sorted(node)
        while free in units:
            free += 1
        base = _find_base(units, bases, labels, free)
        bases.add(base)
        offset = position ^ base
        if offset >= _MAX_OFFSET:
            raise ValueError(f"code-point map too large for one trie: offset {offset}")
        units[position] |= offset << 10
        for label in labels:
            child = node[label]
            if label == 0:
                units[base] = _LEAF | child
                units[position] |= _HAS_LEAF
            else:
                units[base ^ label] = label
                stack.append((base ^ label, child))
    # A reader XORs any byte into a position: every block of 256 must exist to its end.
    size = (max(units) | 0xFF) + 1
    return [units.get(i, 0) for i in range(size)]


def _find_base(units: Mapping[int, int], bases: set[int], labels: list[int], start: int) -> int:
    candidate = start
    while True:
        base = candidate ^ labels[0]
        if base > 0 and base not in bases and all(base ^ label not in units for label in labels):
            return base
        candidate += 1
