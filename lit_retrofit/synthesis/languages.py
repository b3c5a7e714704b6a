"""What prompts and rules need to know of a language: its name, labels, question patterns, examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from lit_retrofit.data.text_language import base_code


@dataclass(frozen=True, slots=True)
class Example:
    """A document with what one may ask about it; the n-th examples of all languages say the same."""

    document: str
    question: str
    keywords: str


@dataclass(frozen=True, slots=True)
class Language:
    """What is known of a language.

    Attributes:
        name: in English, for instructions.
        document: the word for "document" as a label, in the language itself.
        question: for "question".
        keywords: for "search query".
        questions: patterns with one gap, ``{}``, for a keyword.
        examples: for prompts that a pre-trained model continues.
    """

    name: str
    document: str
    question: str
    keywords: str
    questions: tuple[str, ...]
    examples: tuple[Example, ...]


@lru_cache(maxsize=1)
def known_languages() -> Mapping[str, Language]:
    """By ISO 639 code."""
    text = (files("lit_retrofit.synthesis") / "data" / "languages.json").read_text(encoding="utf-8")
    return {
        code: Language(
            **{name: fields[name] for name in ("name", "document", "question", "keywords")},
            questions=tuple(fields["questions"]),
            examples=tuple(Example(**example) for example in fields["examples"]),
        )
        for code, fields in json.loads(text).items()
    }


@lru_cache(maxsize=1)
def example_queries() -> frozenset[str]:
    """The questions and keywords of all examples."""
    examples = [example for language in known_languages().values() for example in language.examples]
    return frozenset(query for example in examples for query in (example.question, example.keywords))


def find_language(tag: str) -> Language | None:
    """The language of a tag such as ``zh-CN``, if it is known."""
    return known_languages().get(base_code(tag))


def language_name(tag: str) -> str:
    """Its English name, or the tag itself with a word that a model understands."""
    known = find_language(tag)
    return known.name if known else f"the language with the code '{tag}'"
