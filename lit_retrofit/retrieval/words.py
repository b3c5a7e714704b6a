"""Texts as words for lexical search: one tokenisation that is fair to every script."""

from __future__ import annotations

import re
import unicodedata

# Scripts that write words without spaces between them, or (Hangul) glue particles to them.
_CJK = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_THAI = "\u0e00-\u0e7f"
_RUNS = re.compile(f"[{_CJK}]+|[{_HANGUL}]+|[{_THAI}]+|[^{_CJK}{_HANGUL}{_THAI}]+")
_CUT = re.compile(f"[{_CJK}{_HANGUL}{_THAI}]")


class _WordCharacters(dict[int, int]):
    """Code point → itself if it belongs to a word, else a space; filled as characters are met.

    Marks belong to words: a regular expression's word class would cut Devanagari at its vowel signs.
    """

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LNM" else ord(" ")
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def tokenize(text: str) -> list[str]:
    """Lower-case Unicode words; runs of Han and kana, of Hangul and of Thai as character bigrams.

    No stop words and no stemmer, so that no language has an advantage. Text is normalised (NFKC)
    first: full-width and half-width forms are equal.
    """
    tokens: list[str] = []
    for word in normalise(text).translate(_WORD_CHARACTERS).split():
        for run in _RUNS.findall(word):
            tokens.extend(_bigrams(run) if _CUT.match(run) else (run,))
    return tokens


def normalise(text: str) -> str:
    """Lower case in the form NFKC: what `tokenize` cuts into words."""
    # Turkish İ lower-cases to i and a combining dot, which would keep it apart from a plain i.
    return unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]
