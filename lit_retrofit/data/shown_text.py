"""How a text is shown: short, on one line, with nothing in it that acts."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

EXCERPT = 280  # characters of a text that are shown
JOINERS = "\u200c\u200d"  # part of the spelling of Persian, of Indic scripts and of emoji


def shown(text: str, most: int = EXCERPT) -> str:
    """The beginning of a text, on one line, safe for a terminal and a page.

    White space becomes single spaces. Controls, marks of direction, invisible, private and unassigned
    characters are written as ``<U+202E>``: they neither act nor hide. What is left out is counted.
    """
    part = " ".join(text[: most + 1].split()) if len(text) > most else " ".join(text.split())
    cut = len(text) > most
    written = "".join(_written(c) for c in part[:most])
    return f"{written} … ({len(text):,} characters)" if cut else written


@lru_cache(maxsize=65536)
def _written(character: str) -> str:
    if character in JOINERS or unicodedata.category(character)[0] != "C":
        return character
    return f"<U+{ord(character):04X}>"
