"""Queries without any model: titles, first sentences, keywords, and questions about keywords."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from lit_retrofit.data.records import Document, text_id
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.documents import SourceDocument
from lit_retrofit.synthesis.drafts import Draft, Provenance
from lit_retrofit.synthesis.languages import find_language
from lit_retrofit.synthesis.phrases import PhraseFinder, is_unspaced, sentences

VERSION = "rules 1"
RULE_TEMPLATES = ("title", "sentence", "keywords", "question")

_REST = 40  # characters that a document must keep when its sentence is taken out
_PHRASES = 6  # of a document that become queries
_SENTENCE_WORDS = 12
_SENTENCE_CHARACTERS = 30  # where words have no spaces


class RuleWriter:
    """Writes queries for documents of one corpus.

    Args:
        documents: the corpus: what is rare in it makes a keyword.
    """

    def __init__(self, documents: Sequence[SourceDocument]) -> None:
        self._finder = PhraseFinder(documents)

    def write(self, source: SourceDocument, template: str, seed: int, copies: int = 1) -> Iterator[Draft]:
        """Queries of one kind for a document; none where it gives none.

        Args:
            source: of the corpus.
            template: one of `RULE_TEMPLATES`.
            seed: of the choices.
            copies: how many queries.
        """
        rng = random.Random(f"{seed} {template} {source.document.id}")
        found = {
            "title": lambda: _titles(source),
            "sentence": lambda: _sentences(source, copies),
            "keywords": lambda: self._keywords(source, rng, copies),
            "question": lambda: self._questions(source, rng, copies),
        }[template]()
        for query, positive in found:
            yield Draft(
                query=" ".join(query.split()),
                language=source.language,
                positive=positive,
                group=source.group,
                provenance=Provenance("rules", VERSION, template, seed),
                own_words=True,
            )

    def _keywords(
        self, source: SourceDocument, rng: random.Random, copies: int
    ) -> Iterator[tuple[str, Document]]:
        """In turn: the first sentence without common words, the best phrases, two of these together."""
        phrases = self._finder.phrases(source)[:_PHRASES]
        begin = rng.randrange(3)
        for copy in range(copies):
            form = ("lead", "phrase", "two")[(begin + copy) % 3]
            rest = phrases[copy + 1 :]
            if form == "lead" and (lead := self._finder.lead(source)):
                yield lead, source.document
            elif form == "two" and rest:
                yield f"{phrases[copy]} {rng.choice(rest)}", source.document
            elif copy < len(phrases):
                yield phrases[copy], source.document

    def _questions(
        self, source: SourceDocument, rng: random.Random, copies: int
    ) -> Iterator[tuple[str, Document]]:
        language = find_language(source.language)
        if language is None:
            return
        for phrase in self._finder.phrases(source)[: min(copies, _PHRASES)]:
            yield rng.choice(language.questions).replace("{}", phrase), source.document


def check_rule_templates(templates: Sequence[str]) -> None:
    """Refuses templates that no rule knows."""
    for template in templates:
        if template not in RULE_TEMPLATES:
            raise UserError(
                f"templates: '{template}' needs a language model (--generator endpoint or local); "
                f"rules know {', '.join(RULE_TEMPLATES)}"
            )


def _titles(source: SourceDocument) -> Iterator[tuple[str, Document]]:
    """The title, for the body alone: it would be found in the whole document word by word."""
    if source.title and source.body.strip():
        yield source.title, _part(source, source.body)


def _sentences(source: SourceDocument, copies: int) -> Iterator[tuple[str, Document]]:
    """The first sentences, each for the document without it (the inverse cloze task, arXiv 1906.00300)."""
    pieces = list(sentences(source.body))
    for at in range(min(copies, len(pieces))):
        rest = " ".join("".join([*pieces[:at], " ", *pieces[at + 1 :]]).split())
        if len(rest) >= _REST:
            title = f"{source.title.strip()} " if source.title else ""
            yield _shortened(pieces[at].strip()), _part(source, title + rest)


def _shortened(sentence: str) -> str:
    sentence = sentence.rstrip(".!?…。！？． ")
    if is_unspaced(sentence):
        return sentence[:_SENTENCE_CHARACTERS]
    return " ".join(sentence.split()[:_SENTENCE_WORDS])


def _part(source: SourceDocument, text: str) -> Document:
    """A text of its own needs an id of its own; the group ties it to the whole document."""
    return Document(f"{source.document.id}#{text_id(text)}", text, source.language)
