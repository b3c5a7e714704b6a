"""Ranks against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lit_retrofit.cleaning import consistency
from lit_retrofit.cleaning.consistency import Pool, Ranker, rank_positives, score_bm25
from lit_retrofit.cleaning.options import ConsistencyOptions
from lit_retrofit.data.records import Document, Record, text_id


def record(query: str, *positives: str, negatives: tuple[str, ...] = (), group: str | None = None) -> Record:
    documents = [tuple(Document(text_id(t), t) for t in texts) for texts in (positives, negatives)]
    return Record(query, query, *documents, group=group)


def scored(table: dict[str, dict[str, float]]):
    """A scorer that reads its scores in a table, two queries at a time."""

    def score(queries, documents):
        for start in range(0, len(queries), 2):
            lines = [[table[q].get(d, 0.0) for d in documents] for q in queries[start : start + 2]]
            yield np.array(lines, np.float32)

    return score


def test_the_rank_counts_better_documents_but_no_known_answers():
    records = [
        record("q", "a"),
        record("Q ", "b"),  # equal but for case: b answers q, too
        record("r", "c", group="g"),
        record("s", "d", group="g", negatives=("n",)),  # the same page as c
        record("t", "e", "f"),
        record("u", "A"),  # a, folded
    ]
    table = {
        "q": {"b": 0.9, "c": 0.8, "n": 0.7, "a": 0.6, "d": 0.6},
        "Q ": {"b": 0.9, "a": 1.0},
        "r": {"d": 0.9, "n": 0.8, "c": 0.5},
        "s": {"d": 0.1},
        "t": {"a": 0.9, "f": 0.8, "b": 0.7, "e": 0.1},
        "u": {"a": 0.5, "b": 0.7, "c": 0.7},
    }
    assert rank_positives(records, scored(table)).tolist() == [3, 1, 2, 1, 2, 3]


def test_bm25_finds_words_and_what_it_does_not_find_comes_last():
    documents = ["the filter is removed", "rows and columns", "セル範囲の選択"]
    records = [record(q, d) for q, d in zip(["filter", "cheese", "範囲"], documents, strict=True)]
    assert rank_positives(records, score_bm25).tolist() == [1, 4, 1]
    scores = np.concatenate(list(score_bm25(["filter rows", "?"], documents)))
    assert np.isfinite(scores).tolist() == [[True, True, False], [False] * 3]
    assert np.isinf(np.concatenate(list(score_bm25(["a", ""], ["!", "?"])))).all()


def test_a_models_ranks_are_those_of_its_similarities(bert_folder, tmp_path):
    from lit_retrofit.model.loading import load_encoder
    from lit_retrofit.retrieval.embed import embed_texts

    words = ["page text", "the word", "query", "passage of text", "a page", "some word", "zebra", "1234"]
    records = [record(f"query {word}", f"passage {word} {word[::-1]}") for word in words]
    options = ConsistencyOptions(retriever=str(bert_folder), device="cpu")
    path = Ranker(options)(Pool(tmp_path / "ranks.npz", records))
    encoder = load_encoder(str(bert_folder))
    queries = embed_texts(encoder, [r.query for r in records], "query")
    documents = embed_texts(encoder, [r.positives[0].text for r in records], "document")
    scores = queries @ documents.T
    expected = 1 + (scores > scores.diagonal()[:, None] + 1e-6).sum(1)
    with np.load(path) as arrays:
        assert arrays["ranks"].tolist() == expected.tolist()
    assert expected.max() > 1  # a random model


@pytest.mark.parametrize("size", [1, 300])
def test_queries_are_scored_in_parts_without_losing_one(monkeypatch, bert_folder, tmp_path, size):
    monkeypatch.setattr(consistency, "_QUERIES", size)
    records = [record(f"query {i}", f"text {i}") for i in range(5)]
    path = Ranker(ConsistencyOptions(retriever=str(bert_folder)))(Pool(tmp_path / "r.npz", records))
    with np.load(path) as arrays:
        assert len(arrays["ranks"]) == 5
