import math

import pytest
import torch

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import (
    Ranking,
    check_finite,
    evaluate_embeddings,
    measure_ranking,
    notes_on_own_documents,
)
from lit_retrofit.evaluation.tasks import split_tasks


def ranking_of(*document_ids, query="q"):
    ids = tuple(sorted(document_ids))
    indices = torch.tensor([[ids.index(id) for id in document_ids]])
    return Ranking((query,), ids, indices, torch.ones(indices.shape))


def dcg(grades):
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def test_ndcg_takes_the_grades_as_gains_and_cuts_at_ten():
    found = [f"d{rank}" for rank in range(1, 13)]
    qrels = {"d2": 3, "d5": 1, "d10": 2, "d11": 3, "missing": 1, "d1": 0}
    values = measure_ranking(ranking_of(*found), {"q": qrels})
    got, best = dcg([0, 3, 0, 0, 1, 0, 0, 0, 0, 2]), dcg([3, 3, 2, 1, 1])
    assert values["nDCG@10"]["q"] == pytest.approx(got / best, abs=1e-9)
    assert values["MRR@10"]["q"] == pytest.approx(1 / 2)
    assert values["Recall@100"]["q"] == pytest.approx(4 / 5)


def test_recall_looks_100_deep_and_mrr_10():
    found = [f"d{rank}" for rank in range(1, 103)]
    values = measure_ranking(ranking_of(*found), {"q": {"d11": 1, "d100": 1, "d101": 1}})
    assert values["Recall@100"]["q"] == pytest.approx(2 / 3)
    assert values["MRR@10"]["q"] == 0


@pytest.mark.parametrize("first", ["a", "z"])
def test_equal_scores_keep_the_order_of_the_ranking(first):
    """trec_eval would sort ties by document id, whatever the search returned first."""
    second = {"a": "z", "z": "a"}[first]
    values = measure_ranking(ranking_of(first, second), {"q": {first: 1}})
    assert [values[name]["q"] for name in ("nDCG@10", "MRR@10")] == [1, 1]


def test_a_query_that_found_nothing_scores_zero():
    nothing = Ranking(("q",), ("a",), torch.tensor([[-1]]), torch.zeros(1, 1))
    assert measure_ranking(nothing, {"q": {"a": 1}}) == {
        name: {"q": 0.0} for name in ("nDCG@10", "Recall@100", "MRR@10")
    }


def test_padding_is_no_document():
    ranking = Ranking(("q",), ("a", "b"), torch.tensor([[0, -1]]), torch.tensor([[0.5, -torch.inf]]))
    assert dict(ranking) == {"q": [("a", 0.5)]}


def unit(*angles):
    """Vectors at the angles (degrees) in the plane: the nearest angle ranks first."""
    radians = torch.tensor(angles, dtype=torch.float64) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1).float()


def two_languages():
    queries = (Query("q0", "", "de"), Query("q1", "", "en"))
    corpus = tuple(Document(id, "", id[:2]) for id in ("de0", "en0", "de1", "en1"))
    return RetrievalSet(
        "set", queries, corpus, {"q0": {"de1": 1, "en0": 2, "en1": 1}, "q1": {"en1": 1, "de0": 1}}
    )


def test_each_task_searches_its_own_corpus():
    results = evaluate_embeddings(two_languages(), unit(0, 10), unit(2, 1, 30, 40))
    rankings = {(r.task.query_language, r.task.corpus_language): dict(r.ranking) for r in results}
    ids = {
        pair: {q: [id for id, _ in found] for q, found in ranking.items()}
        for pair, ranking in rankings.items()
    }
    assert ids == {
        ("de", "de"): {"q0": ["de0", "de1"]},
        ("en", "en"): {"q1": ["en0", "en1"]},
        ("de", "en"): {"q0": ["en0", "en1"]},
        ("en", "de"): {"q1": ["de0", "de1"]},
    }
    assert rankings["de", "de"]["q0"][1][1] == pytest.approx(math.cos(math.radians(30)), abs=1e-6)
    ndcg = {(r.task.query_language, r.task.corpus_language): r.scores["nDCG@10"] for r in results}
    second = 1 / math.log2(3)
    assert ndcg == pytest.approx(
        {("de", "de"): second, ("en", "en"): second, ("de", "en"): 1, ("en", "de"): 1}
    )
    assert results[0].ndcg_per_query == pytest.approx({"q0": second})


def test_scores_are_means_over_queries():
    queries = tuple(Query(f"q{i}", "") for i in range(3))
    data = RetrievalSet(
        "set", queries, (Document("a", ""), Document("b", "")), {q.id: {"a": 1} for q in queries}
    )
    (result,) = evaluate_embeddings(data, unit(0, 1, 90), unit(0, 90))
    assert result.scores["MRR@10"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert result.ndcg_per_query == pytest.approx({"q0": 1, "q1": 1, "q2": 1 / math.log2(3)})


def test_the_query_itself_is_not_found_unless_it_is_judged_relevant():
    corpus = (Document("x", ""), Document("y", ""), Document("z", ""))
    data = RetrievalSet("set", (Query("x", ""), Query("y", "")), corpus, {"x": {"z": 1}, "y": {"y": 1}})
    (result,) = evaluate_embeddings(data, unit(0, 40), unit(0, 40, 41))
    found = {query: [id for id, _ in ranked] for query, ranked in result.ranking}
    assert found == {"x": ["y", "z"], "y": ["y", "z", "x"]}


def test_bad_calls_and_a_diverged_model():
    data = two_languages()
    with pytest.raises(ValueError, match="2 query and 3 document embeddings for 2 queries and 4 documents"):
        evaluate_embeddings(data, unit(0, 1), unit(0, 1, 2))
    with pytest.raises(ValueError, match="at least 100"):
        evaluate_embeddings(data, unit(0, 1), unit(0, 1, 2, 3), k=10)
    broken = unit(0, 1, 2, 3)
    broken[2] = torch.nan
    with pytest.raises(UserError, match="1 of the 6 embeddings"):
        evaluate_embeddings(data, unit(0, 1), broken)


def test_queries_that_do_not_search_their_own_document_are_counted():
    corpus = tuple(Document(id, "") for id in ("x", "y", "z"))
    qrels = {"x": {"z": 1}, "y": {"y": 1}, "q": {"z": 1}}  # y is judged, and searched
    data = RetrievalSet("set", tuple(Query(id, "") for id in qrels), corpus, qrels)
    assert notes_on_own_documents(data, split_tasks(data).tasks) == [
        "set: 1 of 3 queries do not search the document that has their own id"
    ]
    languages = two_languages()
    assert notes_on_own_documents(languages, split_tasks(languages).tasks) == []


def test_embeddings_are_checked_in_pieces(monkeypatch):
    """A memory-mapped corpus may be larger than the memory."""
    asked, isfinite = [], torch.Tensor.isfinite
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda rows: asked.append(len(rows)) or isfinite(rows))
    rows = torch.zeros(40_000, 2)
    rows[[0, 39_999]] = torch.inf
    with pytest.raises(UserError, match="2 of the 40003 embeddings"):
        check_finite("set", torch.zeros(3, 2), rows)
    assert sum(asked) == 40_003 and max(asked) < 20_000
