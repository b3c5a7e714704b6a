"""The names of the rules, in the order in which they are asked: the first that objects has the record."""

from __future__ import annotations

from typing import NamedTuple

# What each rule objects to, in the report's words. Rules of one record come first, then those that compare
# records, then the cap, which so counts clean records only.
RULES = {
    "garbled": "binary, or in a mix of encodings",
    "too_short": "shorter than lengths allows",
    "too_long": "longer than lengths allows",
    "copied": "the query stands word by word in its positive",
    "language": "in another language than the record says",
    "leaked_id": "an id of an evaluation set",
    "leaked_exact": "a text of an evaluation set",
    "leaked_near": "nearly a text of an evaluation set",
    "exact_duplicate": "equal to an earlier record",
    "id_conflict": "a document id that had another text before",
    "near_duplicate": "nearly equal to another record",
    "inconsistent": "the query does not find its positive",
    "language_cap": "more of its language than max_per_language",
}
KEPT = 0
CODES = {name: code for code, name in enumerate(RULES, 1)}
NAMES = ["kept", *RULES]


class Verdict(NamedTuple):
    """Why a record is dropped.

    Attributes:
        rule: one of `RULES`.
        detail: what of the record, and how far it is off.
    """

    rule: str
    detail: str
