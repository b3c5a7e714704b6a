"""Positives of other languages from records of one group."""

from __future__ import annotations

import math

import pytest

from lit_retrofit.data.parallel import add_parallel_positives, join_answers
from lit_retrofit.data.records import Document, Record


def record(
    query: str, language: str | None, group: str | None, *documents: Document, **rest: object
) -> Record:
    return Record(query, query, documents, language=language, group=group, **rest)  # type: ignore[arg-type]


DE = Document("a@de", "Hallo", "de")
EN = Document("a@en", "hello", "en")
RU = Document("a@ru", "привет", "ru")
RU_COPY = Document("a2@ru", "привет", "ru")
DE_2 = Document("b@de", "Guten Tag", "de")
OTHER = Document("z@en", "unrelated", "en")
UNKNOWN = Document("u", "salve", None)


def ids(records: list[Record]) -> list[list[str]]:
    return [[document.id for document in record.positives] for record in records]


def test_own_first_then_other_languages_in_order() -> None:
    records = [
        record("1", "ru", "g", RU),
        record("2", "de", "g", DE_2),
        record("3", "de", "g", DE),
        record("4", "en", "g", EN),
        record("5", "en", "h", OTHER),
    ]
    expected = [
        ["a@ru", "a@de", "b@de", "a@en"],
        ["b@de", "a@en", "a@ru"],
        ["a@de", "a@en", "a@ru"],
        ["a@en", "a@de", "b@de", "a@ru"],
        ["z@en"],
    ]
    assert ids(add_parallel_positives(records)) == expected
    assert ids(add_parallel_positives(records[::-1])) == expected[::-1]


def test_equal_texts_come_once() -> None:
    records = [record("1", "de", "g", DE), record("2", "ru", "g", RU), record("3", "ru", "g", RU_COPY)]
    assert ids(add_parallel_positives(records))[0] == ["a@de", "a2@ru"]


def test_without_group_or_language_nothing_changes() -> None:
    records = [record("1", "de", None, DE), record("2", None, "g", UNKNOWN), record("3", "en", "g", EN)]
    assert add_parallel_positives(records) == records


def test_negatives_that_became_positives_go_and_scores_stay_aligned() -> None:
    records = [
        record("1", "de", "g", DE, negatives=(EN, OTHER), positive_scores=(0.9,), negative_scores=(0.8, 0.1)),
        record("2", "en", "g", EN),
    ]
    first = add_parallel_positives(records)[0]
    assert first.positives == (DE, EN)
    assert first.positive_scores == (0.9, pytest.approx(math.nan, nan_ok=True))
    assert (first.negatives, first.negative_scores) == ((OTHER,), (0.1,))


def test_records_with_the_same_query_share_their_answers() -> None:
    def record(id: str, query: str, positive: str, *negatives: str, language: str = "en") -> Record:
        def documents(names: tuple[str, ...]) -> tuple[Document, ...]:
            return tuple(Document(name, f"text {name}", language) for name in names)

        return Record(
            id, query, documents((positive,)), documents(negatives), language, positive_scores=(0.9,)
        )

    first, second, third, other = join_answers(
        [
            record("1", "q", "a", "b", "x"),
            record("2", "q", "b"),
            record("3", "q", "c", language="de"),
            record("4", "other", "d", "a"),
        ]
    )
    assert [d.id for d in first.positives] == ["a", "b"]
    assert [d.id for d in first.negatives] == ["x"], "what answers the query elsewhere is no negative here"
    assert [d.id for d in second.positives] == ["b", "a"]
    assert first.positive_scores == second.positive_scores == (0.9, 0.9)
    assert [d.id for d in third.positives] == ["c"]
    assert [d.id for d in other.negatives] == ["a"] and other.positive_scores == (0.9,)


@pytest.mark.parametrize(("scores", "expected"), [
    ([(1.0,), (2.0,)], [(1.0, 2.0), (2.0, 1.0)]),
    ([(1.0,), ()], [(1.0, math.nan), (math.nan, 1.0)]),
    ([(), ()], [(), ()]),
])  # fmt: skip
def test_scores_stay_with_their_documents(scores, expected) -> None:
    """Of two records with one query and a positive each; what nobody has scored is unknown."""
    given = [
        record("q", "de", None, document, positive_scores=score)
        for document, score in zip((DE, DE_2), scores, strict=True)
    ]
    for made, wanted in zip(join_answers(given), expected, strict=True):
        assert made.positive_scores == pytest.approx(wanted, nan_ok=True)


def test_a_record_to_which_nothing_is_added_stays_as_it_is() -> None:
    scored = record("q", "de", None, DE, positive_scores=(1.0,))
    plain = record("q", "de", None, DE, DE_2)
    first, second = join_answers([scored, plain])
    assert first.positive_scores == pytest.approx((1.0, math.nan), nan_ok=True)
    assert second == plain
