"""Queries without any model: titles, first sentences, keywords by tf-idf, and questions about keywords."""

from __future__ import annotations

import math
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lit_retrofit.data.records import Document, text_id
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.documents import SourceDocument
from lit_retrofit.synthesis.drafts import Draft, Provenance
from lit_retrofit.synthesis.language import primary
from lit_retrofit.synthesis.languages import find_language

VERSION = "rules 1"
RULE_TEMPLATES = ("title", "sentence", "keywords", "question")

_SENTENCE = re.compile(r".+?(?:[.!?…]+(?=\s|$)|[。！？．]|$)", re.DOTALL)
# Between two of these lies a phrase: punctuation, brackets, quotes, line breaks.
_BREAK = re.compile(r"[^\w\s'’\-·ー・]+|\s[-–—]\s|\n|_")
# Scripts without spaces between words: a unit is a character there, a word elsewhere.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_UNITS = re.compile("[\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\\s\u0e00-\u0e7f"
                    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")  # fmt: skip
_EDGES = "\"'’“”„«»()[]{},;:.!?…"
_COMMON = 0.15  # a unit in more than this share of a language's documents bounds no phrase
_REST = 40  # characters that a document must keep when its sentence is taken out


@dataclass(frozen=True, slots=True)
class Phrase:
    """A run of words of a document that may be searched for.

    Attributes:
        text: as it stands there.
        score: how much it says about this document among the others.
    """

    text: str
    score: float


class RuleWriter:
    """Writes queries for documents of one corpus.

    Args:
        documents: the corpus: what is rare in it makes a keyword.
    """

    def __init__(self, documents: Sequence[SourceDocument]) -> None:
        self._frequencies: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: Counter[str] = Counter()
        for document in documents:
            language = primary(document.language)
            self._sizes[language] += 1
            self._frequencies[language].update({unit.casefold() for unit in _UNITS.findall(document.body)})

    def write(self, document: SourceDocument, template: str, seed: int, copies: int = 1) -> Iterator[Draft]:
        """Queries of one kind for a document; none where it gives none.

        Args:
            document: of the corpus.
            template: one of `RULE_TEMPLATES`.
            seed: of the choices.
            copies: how many queries.
        """
        rng = random.Random(f"{seed} {template} {document.document.id}")
        language = document.language
        provenance = Provenance("rules", VERSION, template, seed)
        if template == "title" and document.title and document.body.strip():
            yield self._draft(document, document.title, provenance, _without_title(document))
        elif template == "sentence":
            yield from self._sentences(document, rng, provenance, copies)
        elif template == "keywords":
            for query in self._keywords(document, rng, copies):
                yield self._draft(document, query, provenance)
        elif template == "question":
            known = find_language(language)
            for phrase in self.phrases(document)[:copies] if known else ():
                query = rng.choice(known.questions).format(phrase.text) if known else ""
                yield self._draft(document, query, provenance)

    def phrases(self, document: SourceDocument) -> list[Phrase]:
        """The phrases of a document, the most telling first, none within another."""
        language = primary(document.language)
        found: dict[str, Phrase] = {}
        counts: Counter[str] = Counter()
        place = 0
        for segment in _BREAK.split(document.body):
            if not segment:
                continue
            units = [(m.group(), m.start(), m.end()) for m in _UNITS.finditer(segment)]
            for text, weight in self._windows(segment, units, language):
                key = text.casefold()
                counts[key] += 1
                # What stands early says what a page is about.
                early = 1.0 / (1.0 + place / 12)
                if key not in found:
                    found[key] = Phrase(text, weight * (0.5 + early))
            place += len(units)
        scored = [
            Phrase(phrase.text, phrase.score * (1 + math.log(counts[key]))) for key, phrase in found.items()
        ]
        scored.sort(key=lambda phrase: (-phrase.score, phrase.text))
        return _apart(scored)

    def _windows(
        self, segment: str, units: list[tuple[str, int, int]], language: str
    ) -> Iterator[tuple[str, float]]:
        """Runs of 1–4 words, or 2–8 characters, that neither begin nor end with a common one."""
        size, frequencies = self._sizes[language], self._frequencies[language]
        shares = [frequencies[unit.casefold()] / size for unit, _, _ in units]
        unspaced = bool(units) and sum(bool(_UNSPACED.match(u)) for u, _, _ in units) * 2 > len(units)
        shortest, longest = (2, 8) if unspaced else (1, 4)
        weights = [math.log((1 + size) / (1 + share * size)) for share in shares]
        for begin in range(len(units)):
            if shares[begin] > _COMMON and not unspaced:
                continue
            for end in range(begin + shortest, min(begin + longest, len(units)) + 1):
                if shares[end - 1] > _COMMON and not unspaced:
                    continue
                if unspaced and not _is_word_like(units, begin, end):
                    continue
                text = segment[units[begin][1] : units[end - 1][2]].strip("'’-·")
                if sum(c.isalpha() for c in text) < 2:
                    continue
                inner = weights[begin:end]
                # Between the sum, which likes long runs, and the mean, which likes single rare words. Common
                # words inside take from it.
                common = sum(share > _COMMON for share in shares[begin:end])
                yield text, sum(inner) / len(inner) ** 0.6 / (1 + common)

    def _keywords(self, document: SourceDocument, rng: random.Random, copies: int) -> Iterator[str]:
        """In turn: the beginning without common words, the best phrases, two of these together."""
        phrases = self.phrases(document)[:6]
        begin = rng.randrange(3)
        for copy in range(copies):
            form = ("lead", "phrase", "two")[(begin + copy) % 3]
            rest = phrases[copy + 1 :]
            if form == "lead" and (lead := self._lead(document)):
                yield lead
            elif form == "two" and copy < len(phrases) and rest:
                yield f"{phrases[copy].text} {rng.choice(rest).text}"
            elif copy < len(phrases):
                yield phrases[copy].text

    def _lead(self, document: SourceDocument) -> str | None:
        """The first sentence's words but the common ones, at most five; for scripts with spaces."""
        sentence = next(_SENTENCE.finditer(document.body.lstrip()), None)
        if sentence is None or len(_UNSPACED.findall(sentence.group())) * 2 > len(sentence.group()):
            return None
        language = primary(document.language)
        limit = _COMMON * self._sizes[language]
        words = [word.strip(_EDGES) for word in sentence.group().split()]
        telling = [w for w in words if len(w) > 1 and self._frequencies[language][w.casefold()] <= limit]
        return " ".join(telling[:5]) if len(telling) > 1 else None

    def _sentences(
        self, document: SourceDocument, rng: random.Random, provenance: Provenance, copies: int
    ) -> Iterator[Draft]:
        """The first sentences as queries, each for the rest of its document."""
        body = document.body
        sentences = [match for match in _SENTENCE.finditer(body) if match.group().strip()]
        for match in sentences[:copies]:
            rest = f"{body[: match.start()]} {body[match.end() :]}"
            if len(" ".join(rest.split())) < _REST:
                return
            query = _shortened(match.group().strip(), document.language)
            title = f"{document.title.strip()} " if document.title else ""
            yield self._draft(document, query, provenance, _part(document, title + " ".join(rest.split())))

    def _draft(
        self,
        document: SourceDocument,
        query: str,
        provenance: Provenance,
        positive: Document | None = None,
    ) -> Draft:
        return Draft(
            query=" ".join(query.split()),
            language=document.language,
            positive=positive or document.document,
            group=document.group,
            provenance=provenance,
            own_words=True,
        )


def check_rule_templates(templates: Sequence[str]) -> None:
    """Refuses templates that no rule knows."""
    for template in templates:
        if template not in RULE_TEMPLATES:
            raise UserError(
                f"templates: '{template}' needs a language model (--generator endpoint or local); "
                f"rules know {', '.join(RULE_TEMPLATES)}"
            )


def _is_word_like(units: list[tuple[str, int, int]], begin: int, end: int) -> bool:
    """Cuts only where the kind of character changes, or inside Han, whose words are short."""
    first, last = units[begin][0], units[end - 1][0]
    kinds = [_kind(unit) for unit, _, _ in units[begin:end]]
    if "hiragana" in kinds:
        return False
    before = _kind(units[begin - 1][0]) if begin else None
    after = _kind(units[end][0]) if end < len(units) else None
    if before == _kind(first) and before != "han":
        return False
    return not (after == _kind(last) and after != "han")


def _kind(unit: str) -> str:
    return _script(unit[0])


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    name = unicodedata.name(character, "")
    for kind, begin in (("hiragana", "HIRAGANA"), ("katakana", "KATAKANA"), ("han", "CJK"), ("thai", "THAI")):
        if name.startswith(begin):
            return kind
    return "word"


def _apart(phrases: Sequence[Phrase]) -> list[Phrase]:
    """The best phrases that share no word: a part of a chosen one says nothing new."""
    chosen: list[Phrase] = []
    used: set[str] = set()
    for phrase in phrases[:60]:
        units = {unit.casefold() for unit in _UNITS.findall(phrase.text)}
        if not units & used:
            chosen.append(phrase)
            used |= units
    return chosen


def _shortened(sentence: str, language: str) -> str:
    """A sentence of at most 12 words, or 30 characters where words have no spaces."""
    sentence = sentence.rstrip(".!?…。！？． ")
    if len(_UNSPACED.findall(sentence)) * 2 > len(sentence):
        return sentence[:30]
    return " ".join(sentence.split()[:12])


def _without_title(document: SourceDocument) -> Document:
    return _part(document, document.body)


def _part(document: SourceDocument, text: str) -> Document:
    """A text of its own needs an id of its own; the group ties it to the whole document."""
    return Document(f"{document.document.id}#{text_id(text)}", text, document.language)
