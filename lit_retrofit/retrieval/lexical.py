"""BM25 with one tokenisation that is fair to every script: mining and evaluation stand on it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray

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
    # Turkish İ lower-cases to i and a combining dot, which would keep it apart from a plain i.
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")
    tokens: list[str] = []
    for word in text.translate(_WORD_CHARACTERS).split():
        for run in _RUNS.findall(word):
            tokens.extend(_bigrams(run) if _CUT.match(run) else (run,))
    return tokens


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


class LexicalIndex:
    """BM25, Lucene's variant with k1 1.5 and b 0.75, over some texts.

    Args:
        texts: the corpus; may hold texts without any word.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        corpus = [tokenize(text) for text in texts]
        self._documents = len(corpus)
        self._index = None
        if any(corpus):  # an index over no terms cannot be built, and would find nothing
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(corpus, show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """(documents,) float32, the score of each; 0 where it shares no term with the query."""
        ids = self._index.get_tokens_ids(tokenize(query)) if self._index is not None else []
        if self._index is None or not ids:
            return np.zeros(self._documents, np.float32)
        return self._index.get_scores_from_ids(ids)


def top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the k largest positive scores, best first, ties by the smaller position."""
    matched = np.flatnonzero(scores > 0)
    if len(matched) > k:
        least = np.partition(scores[matched], len(matched) - k)[len(matched) - k]
        matched = matched[scores[matched] >= least]
    return matched[np.argsort(-scores[matched], kind="stable")][:k]
