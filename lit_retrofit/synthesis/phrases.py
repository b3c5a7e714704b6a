"""Phrases that tell a document from the others of its corpus: tf-idf over runs of words, in every script."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from lit_retrofit.data.text_language import base_code
from lit_retrofit.synthesis.documents import SourceDocument

_SENTENCE = re.compile(r".+?(?:[.!?…]+(?=\s|$)|[。！？．]|$)", re.DOTALL)
# Between two of these lies a phrase: punctuation, brackets, quotes, line breaks.
_BREAK = re.compile(r"[^\w\s'’\-·ー・]+|\s[-–—]\s|\n|_")
# Scripts without spaces between words: a unit is a character there, a word elsewhere.
_CHARACTERS = "\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED = re.compile(f"[{_CHARACTERS}]")
_UNITS = re.compile(f"[{_CHARACTERS}]|[^\\s{_CHARACTERS}]+")
_EDGES = "\"'’“”„«»()[]{},;:.!?…"
_COMMON = 0.15  # a unit in more than this share of a language's documents bounds no phrase
_FEW = 3  # unless these are so few that nothing can be said
_CHOICE = 60  # phrases looked at for each document
_LEAD_WORDS = 5


class _Unit(NamedTuple):
    text: str
    start: int
    end: int


class PhraseFinder:
    """Knows how many documents of each language hold a word.

    Args:
        documents: the corpus: what is rare in it tells a document.
    """

    def __init__(self, documents: Sequence[SourceDocument]) -> None:
        self._frequencies: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: Counter[str] = Counter()
        for document in documents:
            language = base_code(document.language)
            self._sizes[language] += 1
            self._frequencies[language].update({unit.casefold() for unit in _UNITS.findall(document.body)})

    def phrases(self, document: SourceDocument) -> list[str]:
        """The phrases of a document as they stand in it, the most telling first; no two share a word."""
        language = base_code(document.language)
        weights: dict[str, tuple[str, float]] = {}
        counts: Counter[str] = Counter()
        place = 0
        for segment in _BREAK.split(document.body):
            units = [_Unit(m.group(), m.start(), m.end()) for m in _UNITS.finditer(segment or "")]
            # What stands early says what a page is about.
            early = 0.5 + 1 / (1 + place / 12)
            for text, weight in self._runs(segment, units, language):
                key = text.casefold()
                counts[key] += 1
                weights.setdefault(key, (text, weight * early))
            place += len(units)
        scored = [(-weight * (1 + math.log(counts[key])), text) for key, (text, weight) in weights.items()]
        return _apart([text for _, text in sorted(scored)[:_CHOICE]])

    def lead(self, document: SourceDocument) -> str | None:
        """The first sentence's words but the common ones; None in scripts without spaces."""
        sentence = next(sentences(document.body), "")
        if is_unspaced(sentence):
            return None
        language = base_code(document.language)
        words = [word.strip(_EDGES) for word in sentence.split()]
        telling = [word for word in words if len(word) > 1 and not self._is_common(word, language)]
        return " ".join(telling[:_LEAD_WORDS]) if len(telling) > 1 else None

    def _is_common(self, unit: str, language: str) -> bool:
        limit = max(_FEW, _COMMON * self._sizes[language])
        return self._frequencies[language][unit.casefold()] > limit

    def _runs(self, segment: str, units: list[_Unit], language: str) -> Iterator[tuple[str, float]]:
        """Runs of 1–4 words that neither begin nor end with a common one, or of 2–8 characters."""
        size, frequencies = self._sizes[language], self._frequencies[language]
        weights = [math.log((1 + size) / (1 + frequencies[unit.text.casefold()])) for unit in units]
        common = [self._is_common(unit.text, language) for unit in units]
        unspaced = is_unspaced(segment)
        shortest, longest = (2, 8) if unspaced else (1, 4)
        for begin in range(len(units)):
            for end in range(begin + shortest, min(begin + longest, len(units)) + 1):
                bounded = (
                    _is_word_like(units, begin, end) if unspaced else not (common[begin] or common[end - 1])
                )
                text = segment[units[begin].start : units[end - 1].end].strip("'’-·")
                if bounded and sum(character.isalpha() for character in text) > 1:
                    # Between the sum, which likes long runs, and the mean, which likes single rare words;
                    # common words inside take from it.
                    weight = sum(weights[begin:end]) / (end - begin) ** 0.6
                    yield text, weight / (1 + sum(common[begin:end]))


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, as pieces of it that are not blank."""
    return (match.group() for match in _SENTENCE.finditer(text) if match.group().strip())


def is_unspaced(text: str) -> bool:
    """Whether most of a text is in a script without spaces between words."""
    return 2 * len(_UNSPACED.findall(text)) > len(text)


def _is_word_like(units: list[_Unit], begin: int, end: int) -> bool:
    """Cuts only where the kind of character changes, or within Han, whose words are short."""
    kinds = [_kind(unit.text[0]) for unit in units[begin:end]]
    if "hiragana" in kinds:  # mostly grammar
        return False
    before = _kind(units[begin - 1].text[0]) if begin else None
    after = _kind(units[end].text[0]) if end < len(units) else None
    return all(kind == "han" or kind != outside for kind, outside in ((kinds[0], before), (kinds[-1], after)))


@lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    name = unicodedata.name(character, "")
    for kind, begin in (("hiragana", "HIRAGANA"), ("katakana", "KATAKANA"), ("han", "CJK"), ("thai", "THAI")):
        if name.startswith(begin):
            return kind
    return "word"


def _apart(phrases: Sequence[str]) -> list[str]:
    """A phrase that shares a word with a better one says nothing new."""
    chosen: list[str] = []
    used: set[str] = set()
    for phrase in phrases:
        units = {unit.casefold() for unit in _UNITS.findall(phrase)}
        if not units & used:
            chosen.append(phrase)
            used |= units
    return chosen
