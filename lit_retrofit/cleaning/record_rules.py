"""The rules that look at one record alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import ftfy
from ftfy.badness import is_bad

from lit_retrofit.cleaning.folding import visible_length
from lit_retrofit.cleaning.options import Range, Rules
from lit_retrofit.cleaning.verdicts import Verdict
from lit_retrofit.data.records import Record
from lit_retrofit.data.text_language import detect, enough_letters, is_known, same_language
from lit_retrofit.retrieval.copied import find_copied

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Controls but for white space, the replacement character, private use and what is no character at all. One
# text of 12,000 has an escape sequence left in it (0.4 % of its characters) and is fine otherwise.
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff]")
_UNREADABLE_SHARE = 0.01
_MOJIBAKE_SAMPLE = 10_000  # characters searched for wrongly decoded ones


class RecordRules:
    """Asks the rules of one record in their order.

    Args:
        rules: the user's options.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._allowed = rules.language.allowed

    def __call__(self, record: Record) -> Verdict | None:
        """The first objection, if there is one."""
        return next(self._objections(record), None)

    def _objections(self, record: Record) -> Iterator[Verdict]:
        if self._rules.garbled:
            yield from self._garbled(record)
        yield from self._lengths(record)
        yield from self._copied(record)
        yield from self._language(record)

    def _garbled(self, record: Record) -> Iterator[Verdict]:
        for name, text in _texts(record):
            unreadable = len(_UNREADABLE.findall(text))
            if unreadable > _UNREADABLE_SHARE * len(text):
                yield Verdict("garbled", f"{name}: {unreadable} unreadable of {len(text)} characters")
            elif is_mojibake(text[:_MOJIBAKE_SAMPLE]):
                yield Verdict("garbled", f"{name}: UTF-8 that was read as another encoding")

    def _lengths(self, record: Record) -> Iterator[Verdict]:
        lengths = self._rules.lengths
        yield from _length("query", record.query, visible_length, lengths.query_characters, "characters")
        for name, text in _texts(record):
            if name.startswith("positive"):
                span = lengths.document_characters
                yield from _length(name, text, visible_length, span, "characters")
            elif name.startswith("negative"):
                span = (0, lengths.document_characters[1])
                yield from _length(name, text, visible_length, span, "characters")
        if lengths.query_tokens:
            yield from _length("query", record.query, self._tokens, lengths.query_tokens, "tokens")
        if lengths.document_tokens:
            for number, positive in enumerate(record.positives):
                name = f"positive {number + 1}"
                yield from _length(name, positive.text, self._tokens, lengths.document_tokens, "tokens")

    def _tokens(self, text: str) -> int:
        return len(self._tokenizer(text, truncation=False)["input_ids"])

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from lit_retrofit.model.loading import load_tokenizer

        return load_tokenizer(self._rules.lengths.model or "")

    def _copied(self, record: Record) -> Iterator[Verdict]:
        least = self._rules.copied_words
        found = find_copied(record, least) if least else None
        if found:
            yield Verdict("copied", f"{found[0]} words of positive {found[1]}")

    def _language(self, record: Record) -> Iterator[Verdict]:
        options = self._rules.language
        texts = [("query", record.query, record.language)]
        for number, positive in enumerate(record.positives):
            texts.append((f"positive {number + 1}", positive.text, positive.language or record.language))
        for name, text, language in texts:
            if language and self._allowed and not any(same_language(language, a) for a in self._allowed):
                yield Verdict("language", f"{name}: {language} is not among those allowed")
            if options.confidence is None or not enough_letters(text, options.min_letters):
                continue
            wanted = [known for known in ([language] if language else self._allowed) if is_known(known)]
            if not wanted:
                continue
            found, confidence = detect(text)
            if confidence >= options.confidence and not any(same_language(found, one) for one in wanted):
                yield Verdict("language", f"{name}: {found} ({confidence:.2f}), not {' or '.join(wanted)}")


def is_mojibake(text: str) -> bool:
    """Whether a text was UTF-8 once and was decoded as something else (``Ã¤`` for ``ä``), as ftfy finds it.

    Looking odd is not enough: the repair must also succeed. Danish quotation marks (»åbne«) only look odd.
    """
    return not text.isascii() and is_bad(text) and ftfy.fix_encoding(text) != text


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    yield "query", record.query
    for kind, documents in (("positive", record.positives), ("negative", record.negatives)):
        for number, document in enumerate(documents):
            yield f"{kind} {number + 1}", document.text


def _length(name: str, text: str, measure: Callable[[str], int], span: Range, unit: str) -> Iterator[Verdict]:
    least, most = span
    length = measure(text)
    if length < least:
        yield Verdict("too_short", f"{name}: {length} {unit}")
    elif length > most:
        yield Verdict("too_long", f"{name}: {length} {unit}")
