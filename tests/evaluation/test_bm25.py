import math

import pytest

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.evaluation.bm25 import rank_bm25
from lit_retrofit.evaluation.tasks import split_tasks
from lit_retrofit.retrieval.lexical import tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Filter  zurücksetzen, BITTE_schön!", ["filter", "zurücksetzen", "bitte", "schön"]),
        ("数据库表格 查找", ["数据", "据库", "库表", "表格", "查找"]),
        ("時刻を更新", ["時刻", "刻を", "を更", "更新"]),
        ("ｻﾝﾌﾟﾙ ＡＢＣ", ["サン", "ンプ", "プル", "abc"]),  # half-width kana, full-width Latin
        ("LibreOfficeの設定2つ", ["libreoffice", "の設", "設定", "2", "つ"]),
        ("수식 숨기기", ["수식", "숨기", "기기"]),
        ("การค้น", ["กา", "าร", "รค", "ค้", "้น"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are no borders
        ("İSTANBUL istanbul", ["istanbul", "istanbul"]),
        ("l'été 3.14", ["l", "été", "3", "14"]),
        ("字", ["字"]),
        (" …!? ", []),
    ],
)
def test_tokens_of_many_scripts(text, tokens):
    assert tokenize(text) == tokens


def make_set(queries, corpus, qrels=None):
    queries = tuple(Query(id, text) for id, text in queries.items())
    corpus = tuple(Document(id, text) for id, text in corpus.items())
    return RetrievalSet("set", queries, corpus, qrels or {q.id: {corpus[0].id: 1} for q in queries})


def rank(data):
    (task,) = split_tasks(data).tasks
    return rank_bm25(data, task)


def lucene(query, documents, k1=1.5, b=0.75):
    """BM25 by hand: idf = ln(1 + (N − df + 0.5) / (df + 0.5)), tf / (tf + k1 (1 − b + b |d| / mean))."""
    texts = [document.split() for document in documents]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for term in query.split():
            df = sum(term in other for other in texts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            tf = text.count(term)
            score += idf * tf / (tf + k1 * (1 - b + b * len(text) / mean))
        scores.append(score)
    return scores


def test_scores_follow_the_formula():
    corpus = {"a": "red fish", "b": "blue fish blue sea and more", "c": "blue whale", "d": "nothing here"}
    ((_, found),) = rank(make_set({"q": "blue fish"}, corpus)).ranking
    expected = dict(zip(corpus, lucene("blue fish", list(corpus.values())), strict=True))
    assert [id for id, _ in found] == sorted("abc", key=lambda id: -expected[id])  # d shares no term
    assert dict(found) == pytest.approx({id: expected[id] for id in "abc"}, rel=1e-5)


def test_ties_go_to_the_earlier_document_whatever_the_depth():
    corpus = {f"d{i:03}": "same words" for i in reversed(range(150))} | {"best": "same same", "other": "else"}
    ((_, found),) = rank(make_set({"q": "same"}, corpus)).ranking
    assert [id for id, _ in found] == ["best", *(f"d{i:03}" for i in reversed(range(51, 150)))]


def test_queries_and_corpora_without_words():
    data = make_set({"q0": "?!", "q1": "unknown", "q2": "word"}, {"a": "word", "b": "..."})
    result = rank(data)
    assert dict(result.ranking) | {"q2": None} == {"q0": [], "q1": [], "q2": None}
    assert result.ndcg_per_query == {"q0": 0, "q1": 0, "q2": 1}
    assert dict(rank(make_set({"q": "word"}, {"a": "...", "b": "!"})).ranking) == {"q": []}


def test_the_query_itself_is_not_found():
    data = make_set({"a": "word"}, {"a": "word", "b": "word word"}, {"a": {"b": 1}})
    assert [id for id, _ in dict(rank(data).ranking)["a"]] == ["b"]


def test_the_index_is_the_tasks_corpus():
    queries = (Query("q", "fisch", "de"),)
    corpus = (
        Document("en", "fisch", "en"),
        Document("de0", "ohne", "de"),
        Document("de1", "ein fisch", "de"),
    )
    data = RetrievalSet("set", queries, corpus, {"q": {"de1": 1, "en": 1}})
    german, english = (rank_bm25(data, task) for task in split_tasks(data).tasks)
    assert [id for id, _ in dict(german.ranking)["q"]] == ["de1"]
    assert dict(german.ranking)["q"][0][1] == pytest.approx(
        lucene("fisch", ["ohne", "ein fisch"])[1], rel=1e-5
    )
    assert [id for id, _ in dict(english.ranking)["q"]] == ["en"]
