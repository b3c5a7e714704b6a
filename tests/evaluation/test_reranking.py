from dataclasses import replace

import pytest
import torch

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.candidates import read_candidates
from lit_retrofit.evaluation.measures import evaluate_embeddings, trec_lines
from lit_retrofit.evaluation.reranking import rerank_embeddings, with_candidates
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


def test_a_query_without_candidates_is_zero_and_told_of():
    candidates = {"q": ("a", "c"), "b d": ()}
    split = with_candidates(SET, split_tasks(SET), candidates)
    assert split.notes == ("set: 1 of 2 queries have no candidates and count as zero",)
    assert rerank(candidates).scores["MAP"] == pytest.approx(0.5)
    # the only candidate of a query is the query itself
    alone = with_candidates(SET, split_tasks(SET), {"q": ("a",), "b d": ("b d",)})
    assert alone.notes == split.notes


LANGUAGES = RetrievalSet(
    "set",
    tuple(Query(id, "?", id[:2]) for id in ("de1", "de2", "en1")),
    tuple(Document(id, id, id[:2]) for id in ("de-a", "de-b", "en-a")),
    {"de1": {"de-a": 1, "en-a": 1}, "de2": {"de-b": 1, "en-a": 1}, "en1": {"en-a": 1, "de-a": 1}},
)


def test_candidates_count_in_the_corpus_of_the_task():
    """Candidates of another language than the task's are none there."""
    candidates = {"de1": ("de-a", "de-b", "en-a"), "de2": ("de-b",), "en1": ("en-a",)}
    split = with_candidates(LANGUAGES, split_tasks(LANGUAGES), candidates)
    names = [(task.query_language, task.corpus_language) for task in split.tasks]
    assert names == [("de", "de"), ("en", "en"), ("de", "en")]
    assert split.notes == (
        "set, de → en: 1 of 2 queries have no candidates and count as zero",
        "set, en → de is left out: none of its 1 queries has a candidate in its corpus",
    )


def test_candidates_of_another_set_are_refused():
    message = r"set: candidate 'x' of query 'q' is not in the corpus \(nor are 1 more of its 3\)"
    with pytest.raises(UserError, match=message):
        rerank({"q": ("a", "x", "y"), "b d": ("e",)})


def test_a_run_that_was_written_here_is_read_whatever_spaces_its_ids_have(tmp_path):
    (found,) = evaluate_embeddings(SET, QUERIES, CORPUS)
    run = tmp_path / "run.trec"
    run.write_text("".join(trec_lines(found.ranking, "m")))
    candidates = read_candidates(run)
    assert "b%20d" in candidates and "b%20d" in candidates["q"]
    assert with_candidates(SET, split_tasks(SET), candidates).notes == ()
    assert dict(rerank(candidates).ranking) == dict(found.ranking)  # all documents were candidates


def test_candidates_that_were_skipped_as_invalid_are_left_out_and_told():
    skipped = replace(SET, left_out=frozenset({"x", "y z"}))
    candidates = {"q": ("a", "x", "y%20z"), "b d": ("e", "x")}
    split = with_candidates(skipped, split_tasks(skipped), candidates)
    assert split.notes == ("set: 3 candidates are left out, for their documents were skipped as invalid",)
    (result,) = rerank_embeddings(skipped, split, candidates, QUERIES, CORPUS)
    assert {query: [id for id, _ in ranked] for query, ranked in result.ranking} == {"q": ["a"], "b d": ["e"]}
    with pytest.raises(UserError, match=r"candidate 'w' of query 'q' is not in the corpus \(nor are 0 more"):
        with_candidates(skipped, split_tasks(skipped), {"q": ("x", "w")})
