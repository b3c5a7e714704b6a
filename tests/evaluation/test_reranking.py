import pytest
import torch

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.reranking import rerank_embeddings, without_candidates
from lit_retrofit.evaluation.tasks import split_tasks

SET = RetrievalSet(
    "set",
    (Query("q", "?"), Query("b d", "?")),
    tuple(Document(id, id) for id in ("a", "b d", "c", "e")),
    {"q": {"a": 1, "c": 2}, "b d": {"e": 1}},
)
QUERIES = torch.eye(4)[[0, 1]]
# the first query is nearest to e, then b, c, a; the second to its own document, then a
CORPUS = torch.tensor([[0.1, 0.8, 0, 0], [0.5, 1, 0, 0], [0.4, 0, 0, 0], [0.9, 0.2, 0, 0]])


def rerank(candidates):
    (result,) = rerank_embeddings(SET, split_tasks(SET), candidates, QUERIES, CORPUS)
    return result


def test_only_the_candidates_are_ordered():
    result = rerank({"q": ("a", "c", "b d"), "b d": ("a", "b%20d", "e")})
    ranked = {query: [id for id, _ in found] for query, found in result.ranking}
    assert ranked == {"q": ["b d", "c", "a"], "b d": ["a", "e"]}  # a query does not find itself
    # average precision: of q (1/2 + 2/3) / 2, of b d 1/2
    assert result.scores["MAP"] == pytest.approx((7 / 12 + 1 / 2) / 2)
    assert result.scores["MRR@10"] == 0.5
    discount = 1 / torch.log2(torch.tensor([2.0, 3.0, 4.0]))
    ndcg = (2 * discount[1] + discount[2]) / (2 * discount[0] + discount[1])
    assert result.ndcg_per_query["q"] == pytest.approx(ndcg.item(), abs=1e-6)


def test_relevant_documents_outside_of_the_candidates_count_as_missed():
    assert rerank({"q": ("a",), "b d": ("e",)}).scores["MAP"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_query_without_candidates_is_zero_and_counted():
    candidates = {"q": ("a", "c"), "b d": ()}
    assert without_candidates(SET, candidates) == 1
    assert rerank(candidates).scores["MAP"] == pytest.approx(0.5)


def test_candidates_of_another_set_are_refused():
    message = r"set: candidate 'x' of query 'q' is not in the corpus \(nor are 1 more of its 3\)"
    with pytest.raises(UserError, match=message):
        rerank({"q": ("a", "x", "y"), "b d": ("e",)})
