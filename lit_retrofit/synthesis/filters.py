"""The filters between a draft and a record. Every one counts what it takes away and keeps examples."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lit_retrofit.data.shown_text import shown
from lit_retrofit.data.text_language import base_code, is_in_another
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.drafts import Draft

_EXAMPLES = 3
_HAN_KANA_THAI = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class FilterOptions:
    """What a record must satisfy.

    Attributes:
        min_characters: of a query.
        max_characters: of a query.
        language_score: drop a query that the detector takes for another language with at least this
            certainty, from 0 to 1; 1 turns it off.
        language_letters: queries with fewer letters are not identified: guesses about them are luck.
        copied_words: drop a query of at least this many words (or twice as many characters of Chinese,
            Japanese and Thai) that stands in its document word by word.
        near_duplicate: drop a query that shares this part of its character trigrams (Jaccard) with an
            earlier one of its language; 1 keeps all but equal ones.
        retriever: a model for the round trip; no round trip without one.
        round_trip_k: keep a record if the model ranks its document among this many for its query, out of the
            documents of its language that were taken.
        per_language: at most this many records per language of the query, drawn at random.
    """

    min_characters: int = 2
    max_characters: int = 300
    language_score: float = 0.7
    language_letters: int = 15
    copied_words: int = 5
    near_duplicate: float = 0.8
    retriever: str | None = None
    round_trip_k: int = 10
    per_language: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_characters <= self.max_characters:
            raise UserError("filters.min_characters and max_characters leave no length; correct them")
        for name in ("language_score", "near_duplicate"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"filters.{name} is {getattr(self, name)}; give a number above 0, at most 1")
        for name in ("copied_words", "round_trip_k", "per_language"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"filters.{name} is {value}; give 1 or more")


@dataclass
class Drops:
    """What one filter took away.

    Attributes:
        count: drafts.
        examples: beginnings of the first queries of them.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, query: str) -> None:
        """Counts one."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(shown(query))


Report = dict[str, Drops]
Rule = Callable[[Draft], bool]


def normalised(text: str) -> str:
    """What two texts have in common that look the same: NFKC, no case, no punctuation, single spaces.

    Characters of no width (direction marks, joiners, soft hyphens) are gone.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = (
        " " if unicodedata.category(c)[0] in "PSZC" else c for c in text if unicodedata.category(c) != "Cf"
    )
    return " ".join("".join(kept).split())


def apply_filters(drafts: Iterable[Draft], options: FilterOptions, seed: int) -> tuple[list[Draft], Report]:
    """All filters but the round trip, which needs a model, and the cap, which comes last.

    Args:
        drafts: in an order that decides which of two duplicates stays.
        options: of the filters.
        seed: of the hashes for near duplicates.
    """
    kept = list(drafts)
    report: Report = {}
    for name, rule in (
        ("length of the query", lambda draft: _has_length(draft, options)),
        ("wrong language", lambda draft: _is_in_language(draft, options)),
        ("copied from the document", lambda draft: not _is_copied(draft, options.copied_words)),
        ("duplicate", _first_of_its_kind()),
        ("near duplicate", _unlike_earlier(options.near_duplicate, seed)),
    ):
        kept = _apply(kept, rule, report.setdefault(name, Drops()))
    return kept, report


def _apply(drafts: Sequence[Draft], rule: Rule, drops: Drops) -> list[Draft]:
    kept = []
    for draft in drafts:
        if rule(draft):
            kept.append(draft)
        else:
            drops.note(draft.query)
    return kept


def _has_length(draft: Draft, options: FilterOptions) -> bool:
    length = len(normalised(draft.query))
    return options.min_characters <= length and len(draft.query) <= options.max_characters


def _is_in_language(draft: Draft, options: FilterOptions) -> bool:
    letters = sum(character.isalpha() for character in draft.query)
    # A character of Chinese says more than a letter.
    letters += sum(2 for _ in _HAN_KANA_THAI.finditer(draft.query))
    if draft.own_words or options.language_score >= 1 or letters < options.language_letters:
        return True
    return not is_in_another(draft.query, draft.language, options.language_score)


def _is_copied(draft: Draft, words: int) -> bool:
    if draft.own_words:
        return False
    query = normalised(draft.query)
    long = len(query.split()) >= words or len(_HAN_KANA_THAI.findall(query)) >= 2 * words
    return long and query in normalised(draft.positive.text)


def _first_of_its_kind() -> Rule:
    seen: set[tuple[str, str]] = set()

    def rule(draft: Draft) -> bool:
        key = (base_code(draft.language), normalised(draft.query))
        new = key not in seen
        seen.add(key)
        return new

    return rule


def _unlike_earlier(threshold: float, seed: int) -> Rule:
    """By MinHash over character trigrams; candidates of the index are compared exactly."""
    if threshold >= 1:
        return lambda draft: True
    from datasketch import MinHash, MinHashLSH

    indexes: dict[str, MinHashLSH] = {}
    shingles: list[set[str]] = []

    def rule(draft: Draft) -> bool:
        text = f" {normalised(draft.query)} "
        mine = {text[i : i + 3] for i in range(max(1, len(text) - 2))}
        sketch = MinHash(num_perm=64, seed=seed)
        sketch.update_batch([shingle.encode() for shingle in sorted(mine)])
        language = base_code(draft.language)
        if language not in indexes:  # building one integrates for its parameters
            indexes[language] = MinHashLSH(threshold=threshold, num_perm=64)
        index = indexes[language]
        for row in index.query(sketch):
            if len(mine & shingles[row]) >= threshold * len(mine | shingles[row]):
                return False
        index.insert(len(shingles), sketch)
        shingles.append(mine)
        return True

    return rule


def cap_per_language(
    drafts: Sequence[Draft], per_language: int | None, seed: int
) -> tuple[list[Draft], Drops]:
    """At most so many queries of a language, drawn at random; the order stays."""
    drops = Drops()
    if per_language is None:
        return list(drafts), drops
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, draft in enumerate(drafts):
        rows[base_code(draft.language)].append(row)
    rng = random.Random(seed)
    chosen = {
        row
        for language in sorted(rows)
        for row in rng.sample(rows[language], min(per_language, len(rows[language])))
    }
    kept = _apply(list(drafts), _members(drafts, chosen), drops)
    return kept, drops


def _members(drafts: Sequence[Draft], rows: set[int]) -> Rule:
    chosen = {id(drafts[row]) for row in rows}
    return lambda draft: id(draft) in chosen
