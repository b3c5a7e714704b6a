"""What is searched, and what a query must never meet."""

from __future__ import annotations

import random

import pytest

from lit_retrofit.data.records import Document, Record, text_id
from lit_retrofit.errors import UserError
from lit_retrofit.mining.pool import Pool, build_pool, read_corpus


def record(query: str, *positives: Document, **fields) -> Record:
    return Record(id=f"file:{query}", query=query, positives=positives, **fields)


def doc(id: str, text: str | None = None, language: str | None = None) -> Document:
    return Document(id, text or f"text of {id}", language)


def known(pool: Pool, query: str) -> set[str]:
    """The texts that the query must not meet."""
    (found,) = (found for found in pool.queries if found.text == query)
    return {pool.documents[row].text for row in found.known}


def test_the_corpus_holds_positives_negatives_and_the_separate_corpus_once_each():
    records = [record("q", doc("a"), negatives=(doc("b"),)), record("r", doc("a"), doc("c"))]
    pool = build_pool(records, [doc("d"), doc("b")])
    assert [document.id for document in pool.documents] == ["a", "b", "c", "d"]
    assert pool.merged == 0


def test_documents_with_one_text_are_one_and_take_the_id_the_user_gave():
    unnamed = doc(text_id("same"), "same")
    records = [record("q", unnamed), record("r", doc("z", "same")), record("s", doc("y"))]
    pool = build_pool(records)
    assert pool.documents == (doc("y"), doc("z", "same"))
    assert pool.merged == 1
    assert known(pool, "q") == known(pool, "r") == {"same"}


def test_one_id_with_two_texts_is_an_error():
    with pytest.raises(UserError, match="document id 'a' has one text in the corpus and another"):
        build_pool([record("q", doc("a", "cut short"))], [doc("a", "the whole text")])


def test_equal_queries_share_their_positives():
    records = [record("q", doc("a")), record("q", doc("b"), language="de"), record("r", doc("c"))]
    pool = build_pool(records)
    assert known(pool, "q") == {"text of a", "text of b"}
    (query,) = (query for query in pool.queries if query.text == "q")
    assert len(query.positives) == 2
    assert pool.record_queries == (0, 0, 1)


def test_a_document_that_is_the_query_is_known():
    pool = build_pool([record("what is it", doc("a")), record("r", doc("b", "what is it"))])
    assert known(pool, "what is it") == {"text of a", "what is it"}


def test_documents_of_the_group_are_known_but_do_not_lower_the_ceiling():
    records = [
        record("q", doc("page@en"), group="page"),
        record("f", doc("page@de"), group="page"),
        record("other", doc("x"), group="other"),
    ]
    pool = build_pool(records)
    assert known(pool, "q") == {"text of page@en", "text of page@de"}
    (query,) = (query for query in pool.queries if query.text == "q")
    assert [pool.documents[row].id for row in query.positives] == ["page@en"]


def test_neither_records_nor_corpus_need_an_order():
    shuffle = random.Random(3).shuffle

    def fields(i: int) -> dict[str, str]:
        return {"group": f"g{i % 17}", "language": "en"}

    records = [
        record(f"q{i % 30}", doc(f"d{i}", f"text {i % 37}", "en" if i % 3 else "de"), **fields(i))
        for i in range(60)
    ]
    corpus = [doc(f"c{i}", f"text {i}", "de") for i in range(30, 50)]
    for scope in ("all", "language", "positive"):
        pool = build_pool(records, corpus, scope)
        mixed, mixed_corpus = list(records), list(corpus)
        shuffle(mixed), shuffle(mixed_corpus)
        again = build_pool(mixed, mixed_corpus, scope)
        assert (again.documents, again.queries, again.merged) == (pool.documents, pool.queries, pool.merged)


def test_a_text_in_two_languages_is_a_candidate_in_both():
    records = [
        record("q", doc("a@en", "Format", "en"), language="en"),
        record("r", doc("a@de", "Format", "de"), language="de"),
        record("s", doc("b", None, "de"), language="en"),
    ]
    pool = build_pool(records, scope="language")
    assert [(document.id, document.language) for document in pool.documents] == [
        ("a@de", "de"),
        ("a@en", "en"),
        ("b", "de"),
    ]
    assert known(pool, "q") == {"Format"}
    assert all(len(query.known) == (1 if query.text == "s" else 2) for query in pool.queries)
    assert len(build_pool(records).documents) == 2


def test_scopes_take_the_language_of_the_query_or_of_its_first_positive():
    records = [record("q", doc("a", None, "de"), doc("b", None, "fr"), language="en")]
    assert build_pool(records).queries[0].language is None
    assert build_pool(records, scope="language").queries[0].language == "en"
    assert build_pool(records, scope="positive").queries[0].language == "de"


def test_a_text_without_language_takes_the_one_it_has_elsewhere():
    records = [
        record("q", doc("a", "one", "en"), negatives=(doc(text_id("two"), "two"),), language="en"),
        record("r", doc("b", "two", "en"), language="en"),
    ]
    pool = build_pool(records, scope="language")
    assert [(document.id, document.language) for document in pool.documents] == [("a", "en"), ("b", "en")]


def test_unknown_languages_are_named():
    nowhere = [record("q", doc("a", None, "en"))]
    with pytest.raises(UserError, match=r"file:q: field 'language' is missing"):
        build_pool(nowhere, scope="language")
    with pytest.raises(UserError, match="document 'b' has no language"):
        build_pool(nowhere, [doc("b")], scope="positive")


def test_reads_a_corpus_with_either_name_for_the_id(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text(
        '{"_id": 7, "title": "Title", "text": "body", "language": "en"}\n{"id": "b", "text": "second"}\n'
    )
    assert read_corpus(file) == ([Document("7", "Title body", "en"), Document("b", "second")], 0)
    file.write_text(
        '{"docid": "a", "text": "x", "metadata": {"language": "de"}}\n{"docid": "b", "text": ""}\n'
    )
    assert read_corpus(file, skip_invalid=True) == ([Document("a", "x", "de")], 1)
    file.write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
    with pytest.raises(UserError, match=r"corpus\.jsonl:2"):
        read_corpus(file)


@pytest.mark.parametrize(
    "other",
    [
        "ZERO\u200bwidth  text",
        "zerowidth\u00a0text ",
        "ｚｅｒｏｗｉｄｔｈ text",
        "\u202bzero\u00adwidth\ntext\u202c",
    ],
)
def test_a_text_that_reads_like_a_positive_is_no_negative(other):
    corpus = [Document("a", other), Document("b", "zero width text")]
    pool = build_pool([Record("file:1", "q", (Document("p", "zerowidth text"),))], corpus)
    assert [pool.documents[row].id for row in pool.queries[0].known] == ["a", "p"]
    assert [pool.documents[row].id for row in pool.queries[0].positives] == ["p"]
