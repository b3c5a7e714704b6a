"""What is found of evaluation sets, and what is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lit_retrofit.cleaning.leakage import Guarded, read_evaluation_sets
from lit_retrofit.cleaning.options import LeakageOptions
from lit_retrofit.cleaning.signatures import sign, similarity
from lit_retrofit.data.hub_retrieval import HubSet
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation import benchmarks

TEXTS = [f"The {word} of the selected range is removed and shown in row {i}." for i, word in enumerate(
    ("filter", "border", "comment", "colour", "number", "formula", "header", "chart")
)]  # fmt: skip


@pytest.fixture
def beir(tmp_path):
    """Two splits: q1 answers with d1 in test, q2 with d2 in dev; d3 answers nothing."""
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": TEXTS[i]} for i in (1, 2, 3)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": f"q{i}", "text": f"question number {i}"} for i in (1, 2)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(head + "q1\td1\t1\nq1\td3\t0\n")
    (folder / "qrels" / "dev.tsv").write_text(head + "q2\td2\t1\n")
    return folder


def test_judged_queries_and_their_answers_are_guarded(beir):
    index = read_evaluation_sets(LeakageOptions(against=(str(beir),)))
    assert set(index.queries.ids) == {"q1"} and set(index.documents.ids) == {"d1"}
    index = read_evaluation_sets(LeakageOptions(against=(f"{beir}@dev", str(beir))))
    assert set(index.queries.ids) == {"q1", "q2"} and set(index.documents.ids) == {"d1", "d2"}
    assert index.summary[0] == f"{beir}@dev: 1 queries, 1 documents"
    index = read_evaluation_sets(LeakageOptions(against=(str(beir),), documents="corpus"))
    assert set(index.documents.ids) == {"d1", "d2", "d3"}
    index = read_evaluation_sets(LeakageOptions(against=(str(beir),), documents="none"))
    assert not index.documents.ids and not index.documents.nearest(sign(["x"], 5), 0.1)[0]


def test_a_file_of_records_is_an_evaluation_set_too(tmp_path):
    file = tmp_path / "dev.jsonl"
    file.write_text(json.dumps({"query": "a question", "positive": TEXTS[0], "query_id": "q9"}) + "\n")
    index = read_evaluation_sets(LeakageOptions(against=(str(file),)))
    assert set(index.queries.ids) == {"q9"} and len(index.documents.hashes) == 1


def test_a_set_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder or benchmark"):
        read_evaluation_sets(LeakageOptions(against=(str(tmp_path / "nowhere"),)))
    with pytest.raises(UserError, match="miracl:xx: no language 'xx'"):
        read_evaluation_sets(LeakageOptions(against=("miracl:xx",)))


def test_the_benchmarks_of_evaluate_are_guarded_part_by_part(beir, monkeypatch):
    """Names of the hub's sets, as a hub that has a small set for each would give them."""

    def give(place: HubSet, name: str) -> RetrievalSet:
        mark = f"{place.split} {place.subset}"
        documents = (Document(f"{mark} yes", f"answer in {mark}"), Document(f"{mark} no", f"other in {mark}"))
        grades = {mark: {documents[0].id: 1, documents[1].id: 0}}
        return RetrievalSet(name, (Query(mark, f"question in {mark}"),), documents, grades)

    monkeypatch.setattr(benchmarks, "read_hub_set", give)
    names = ("miracl:sw,te", "mrtydi:korean@dev", "hf:me/mine:de", str(beir))
    index = read_evaluation_sets(LeakageOptions(against=names))
    marks = ["dev sw", "dev te", "dev korean", "test de"]
    assert list(index.queries.ids) == [*marks, "q1"]
    assert list(index.documents.ids) == [*(f"{mark} yes" for mark in marks), "d1"]
    assert index.queries.names[:3] == ("miracl dev sw", "miracl dev te", "mrtydi dev korean")
    assert index.summary[:2] == (
        "miracl:sw,te: 2 queries, 2 documents",
        "mrtydi:korean@dev: 1 queries, 1 documents",
    )
    nano = read_evaluation_sets(LeakageOptions(against=("nanobeir",), documents="corpus"))
    assert len(nano.queries.names) == 13 and len(nano.documents.names) == 26


def test_the_most_similar_text_is_found_as_by_an_exhaustive_search():
    guarded = Guarded.of([("set", f"d{i}", text) for i, text in enumerate(TEXTS)], 0.7, 5)
    probes = [text.replace("shown", "shewn") for text in TEXTS] + ["Something else altogether."]
    signed = sign(probes, 5)
    found = guarded.nearest(signed, 0.7)
    matrix = similarity(signed[:, None], guarded.signatures[None])
    assert found[-1] is None
    for row, match in enumerate(found[:-1]):
        assert match == (row, matrix[row].max()) and np.argmax(matrix[row]) == row
    assert guarded.nearest(signed, 0.999)[:-1] == [None] * len(TEXTS)
