"""What a text is made of; and, from below, how it is shown."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from lit_retrofit.data.shown_text import EXCERPT as EXCERPT
from lit_retrofit.data.shown_text import JOINERS
from lit_retrofit.data.shown_text import shown as shown

LOOKED_AT = 20_000  # characters of a text that are looked at: a 10 MB text costs what a page does

_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_WIDTHS = {"FULLWIDTH", "HALFWIDTH"}
_NO_SCRIPT = {"MODIFIER", "MATHEMATICAL", "FEMININE", "MASCULINE", "SUPERSCRIPT", "SUBSCRIPT", "DOUBLE"}
_NAMES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana"}
NO_LETTERS = "no letters"


@lru_cache(maxsize=65536)
def _script(letter: str) -> str | None:
    """The script of a letter, out of its Unicode name; None for one that all scripts share."""
    words = unicodedata.name(letter, "").split()
    if words and words[0] in _WIDTHS:
        words = words[1:]
    if not words or words[0] in _NO_SCRIPT:
        return None
    return _NAMES.get(words[0], words[0].capitalize())


def script_of(text: str) -> str:
    """The script of most letters of a text. Kana beside Han is Japanese, Hangul beside Han Korean."""
    letters = Counter(c for c in text[:LOOKED_AT] if c.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        script = _script(letter)
        if script is not None:
            scripts[script] += count
    if not scripts:
        return NO_LETTERS
    for other in ("Kana", "Hangul"):  # each is written together with Han
        if scripts[other] and scripts["Han"]:
            scripts[other] += scripts.pop("Han")
    most = max(sorted(scripts), key=scripts.__getitem__)
    return "Japanese" if most == "Kana" else most


def oddities(text: str) -> list[str]:
    """What a text has that texts seldom mean to have."""
    part = text[:LOOKED_AT]
    found = []
    if any(unicodedata.category(c) == "Cc" and c not in "\t\n\r" for c in part):
        found.append("control characters (binary data?)")
    if "\ufffd" in part:
        found.append("replacement characters (decoded wrongly)")
    if _is_mojibake(part):
        found.append("UTF-8 read as Latin-1 (such as Ã¤)")
    if _DIRECTIONS.intersection(part):
        found.append("marks of writing direction")
    if any(c not in JOINERS and c not in _DIRECTIONS and unicodedata.category(c) == "Cf" for c in part):
        found.append("invisible characters (zero width, soft hyphens)")
    if len(text) > 100_000:
        found.append("more than 100,000 characters")
    return found


def _is_mojibake(text: str) -> bool:
    """Whether characters of Windows' Latin-1 are, byte by byte, the UTF-8 of another one."""
    if text.isascii():
        return False
    return bool(_UTF8.search(bytes(_BYTES.get(c, ord(c) if ord(c) < 0x100 else 0x20) for c in text)))


_UNUSED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
_BYTES = {bytes([b]).decode("cp1252"): b for b in range(0x80, 0xA0) if b not in _UNUSED}
# Letters beyond ASCII (Latin, Greek, Cyrillic) and all of three bytes. Other pairs are met in correct texts:
# the end of `Gruß…` or of `CAFÉ»` is one.
_UTF8 = re.compile(rb"[\xc2\xc3\xce-\xd1][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}")
