"""Texts as duplicates are compared: what the eye does not tell apart is equal."""

from __future__ import annotations

import hashlib
import unicodedata


class _Folded(dict[int, "int | None"]):
    """Code point → itself, a space, or None for one of no width; filled as characters are met.

    Of no width are format characters (joiners, marks of direction, soft hyphens, the byte order mark),
    variation selectors, fillers and the Arabic tatweel, which only lengthens a word. Controls are spaces.
    """

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        value: int | None = code
        if category == "Cf" or code in _NO_WIDTH or 0xFE00 <= code <= 0xFE0F:
            value = None
        elif category in ("Cc", "Zs", "Zl", "Zp"):
            value = ord(" ")
        self[code] = value
        return value


_NO_WIDTH = {0x034F, 0x0640, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
_FOLDED = _Folded()


def fold(text: str) -> str:
    """The text in Unicode's form NFKC, without case, invisible characters and white space at its ends.

    Composed and decomposed letters, full-width and half-width forms, ligatures and Arabic presentation forms
    become equal; accents and punctuation stay. White space of any kind and length is one space.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_FOLDED)
        # Folding may decompose (Turkish İ), and may join what an invisible character kept apart.
        return " ".join(unicodedata.normalize("NFKC", text.casefold()).split())
    return " ".join(text.casefold().translate(_FOLDED).split())


def visible_length(text: str) -> int:
    """How many characters of a text can be seen: white space at the ends and controls are none."""
    stripped = text.strip()
    if stripped.isascii() and stripped.isprintable():
        return len(stripped)
    return len(stripped.translate(_FOLDED).strip())


def hash_text(*texts: str) -> int:
    """64 bits of a text, or of several in their order; equal on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest(), "little")
