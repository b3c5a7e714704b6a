import pytest

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.tasks import split_tasks


def make_set(queries, corpus, qrels):
    """Queries and corpus as id → language."""
    return RetrievalSet(
        "set",
        tuple(Query(id, f"text of {id}", language) for id, language in queries.items()),
        tuple(Document(id, f"text of {id}", language) for id, language in corpus.items()),
        qrels,
    )


QUERIES = {"q0": "de", "q1": "en", "q2": "de", "q3": "fr"}
CORPUS = {"a": "en", "b": "de", "c": "fr", "d": "en", "e": "de"}
QRELS = {
    "q0": {"a": 1, "b": 2},
    "q1": {"d": 1, "c": 1, "b": 0},
    "q2": {"a": 1},
    "q3": {"c": 1, "e": 1, "a": 0},
}


def summary(split):
    return [
        (t.kind, t.query_language, t.corpus_language, t.query_indices, t.document_indices, t.left_out_queries)
        for t in split.tasks
    ]


def test_tasks_restrict_queries_corpus_and_judgements():
    split = split_tasks(make_set(QUERIES, CORPUS, QRELS))
    assert summary(split) == [
        ("monolingual", "de", "de", (0,), (1, 4), 1),  # q2 is answered in English only
        ("monolingual", "en", "en", (1,), (0, 3), 0),
        ("monolingual", "fr", "fr", (3,), (2,), 0),
        ("cross_lingual", "de", "en", (0, 2), (0, 3), 0),
        ("cross_lingual", "en", "fr", (1,), (2,), 0),
    ]
    assert split.notes == (  # grade 0 is no answer: not q3 → a, not q1 → b
        "fr → en is left out: none of its 1 queries has a relevant document among the 2 of that language",
        "en → de is left out: none of its 1 queries has a relevant document among the 2 of that language",
    )


def test_another_pivot_and_every_pair():
    data = make_set(QUERIES, CORPUS, QRELS)
    french = [(t[1], t[2]) for t in summary(split_tasks(data, pivot="fr")) if t[0] == "cross_lingual"]
    assert french == [("en", "fr"), ("fr", "de")]
    every = [(t[1], t[2]) for t in summary(split_tasks(data, pivot=None)) if t[0] == "cross_lingual"]
    assert every == [("de", "en"), ("en", "fr"), ("fr", "de")]


@pytest.mark.parametrize(
    ("queries", "corpus"),
    [
        (dict.fromkeys(QUERIES), dict.fromkeys(CORPUS)),
        (QUERIES, dict.fromkeys(CORPUS)),
        (dict.fromkeys(QUERIES), CORPUS),
    ],
)
def test_without_languages_the_set_is_one_task(queries, corpus):
    split = split_tasks(make_set(queries, corpus, QRELS))
    assert summary(split) == [("all", None, None, (0, 1, 2, 3), (0, 1, 2, 3, 4), 0)]
    assert split.notes == ()


def test_nothing_is_lost_silently():
    queries = {"q0": "de", "q1": "ko", "q2": None, "q3": "de"}
    corpus = {"a": "de", "b": None, "c": "fr"}
    split = split_tasks(
        make_set(queries, corpus, {"q0": {"a": 1}, "q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}})
    )
    assert summary(split) == [("monolingual", "de", "de", (0,), (0,), 1)]
    assert split.notes == (
        "1 queries name no language and are in no task",
        "1 documents name no language and are in no task",
        "fr has 1 documents but no queries: not monolingual",
        "ko has 1 queries but no documents: not monolingual",
        "no queries in the pivot language en: no tasks en → X",
        "no documents in the pivot language en: no tasks X → en",
        "3 of 4 queries are in no task",
    )


def test_a_set_without_any_task_is_the_users_mistake():
    with pytest.raises(
        UserError, match=r"^set: no query has .* \(queries in de, documents in fr, pivot en\)"
    ):
        split_tasks(make_set({"q": "de"}, {"d": "fr"}, {"q": {"d": 1}}))


def test_a_pivot_that_no_text_has_is_refused() -> None:
    documents = (Document("d", "text", "de"), Document("f", "texte", "fr"))
    retrieval_set = RetrievalSet("set", (Query("q", "query", "de"),), documents, {"q": {"d": 1}})
    assert split_tasks(retrieval_set).tasks  # the default pivot may be absent
    with pytest.raises(UserError, match=r"pivot language 'xx'; there are \['de', 'fr'\]"):
        split_tasks(retrieval_set, pivot="xx")
