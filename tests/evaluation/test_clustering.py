import json

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.clustering import LabelledText, cluster_embeddings, read_labelled


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_texts_with_labels(tmp_path):
    rows = [{"text": "a", "label": 1, "language": "de"}, {"text": "b", "label": 2}]
    path = write(tmp_path / "a.jsonl", rows)
    assert read_labelled(path) == (LabelledText("a", "1", "de"), LabelledText("b", "2"))
    path = write(tmp_path / "b.jsonl", [{"sentences": "a", "labels": "x"}, {"sentences": "b", "labels": "y"}])
    assert [text.label for text in read_labelled(path)] == ["x", "y"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b"}], r"a.jsonl:2: field 'label' is missing"),
        ([{"text": "a", "label": "x"}, {"text": " ", "label": "y"}], r"a.jsonl:2: field 'text' is blank"),
        ([{"text": "a", "label": ["x"]}], r"a.jsonl:1: field 'label' is \['x'\]; write one label"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "all 2 texts have one label"),
    ],
)
def test_bad_files(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_labelled(write(tmp_path / "a.jsonl", rows))


def texts(labels, language):
    return [LabelledText(f"t{i}", label, language) for i, label in enumerate(labels)]


def test_v_measure_of_clear_and_of_split_clusters():
    given = (*texts("aabb", "de"), *texts("aabb", "en"), *texts("aaaa", "fr"))
    german = torch.tensor([[0, 0], [0, 0.1], [9, 9], [9, 9.1]])
    # in English the texts of one label lie apart, and lie with one of the other label
    english = torch.tensor([[0, 0], [9, 9], [0, 0.1], [9, 9.1]])
    tasks, notes = cluster_embeddings(given, torch.cat([german, english, german]), name="set")
    assert [(t.query_language, t.queries, t.documents) for t in tasks] == [("de", 4, 2), ("en", 4, 2)]
    assert [t.scores["V-measure"] for t in tasks] == [pytest.approx(1), pytest.approx(0, abs=1e-9)]
    assert notes == ("fr: left out, 4 texts have 1 labels",)


def test_v_measure_against_its_formula():
    # points on a line: k-means finds {0, 1, 2} and {10, 11}, whatever the start
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]])
    tasks, _ = cluster_embeddings(tuple(texts("aabbb", None)), points, name="set")
    joint = torch.tensor([[2.0, 0.0], [1.0, 2.0]]) / 5  # labels × clusters

    def entropy(p):
        p = p[p > 0]
        return -(p * p.log()).sum()

    labels, clusters = entropy(joint.sum(1)), entropy(joint.sum(0))
    homogeneity = 1 - (entropy(joint) - clusters) / labels
    completeness = 1 - (entropy(joint) - labels) / clusters
    expected = 2 * homogeneity * completeness / (homogeneity + completeness)
    assert tasks[0].scores["V-measure"] == pytest.approx(expected.item(), abs=1e-6)


def test_no_language_to_cluster():
    given = (*texts("a", "de"), *texts("b", "en"))
    with pytest.raises(UserError, match="no language has texts that share labels"):
        cluster_embeddings(tuple(given), torch.eye(2), name="set")
