import json
from dataclasses import replace

import ir_measures
import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import Ranking, TaskResult, means_by_kind
from lit_retrofit.evaluation.results import (
    QueryResult,
    Results,
    TaskScores,
    check_output,
    read_queries,
    read_results,
    write_results,
)
from lit_retrofit.evaluation.tasks import LanguageTask


def scores(ndcg):
    return {"nDCG@10": ndcg, "Recall@100": 1.0, "MRR@10": ndcg / 2}


def results(*, bm25=None):
    return Results(
        started=1.5e9,
        seconds=12.0,
        model="some/model",
        data="quickstart:test",
        settings={"pivot": "en", "query_prompt": "query: ", "split": None},
        tasks=(
            TaskScores("monolingual", "de", "de", 10, 100, 3, scores(0.5), bm25),
            TaskScores("monolingual", "zh-CN", "zh-CN", 30, 70, 0, scores(0.7), bm25),
            TaskScores("cross_lingual", "de", "en", 13, 80, 0, scores(0.4), bm25),
        ),
    )


def task_result(ids=("a b", "c", "d"), order=(2, 0, 1), values=(0.75, 0.75, 0.5), languages=("de", "de")):
    kind = "monolingual" if languages[0] == languages[1] else "cross_lingual"
    ranking = Ranking(("q",), ids, torch.tensor([[*order, -1]]), torch.tensor([[*values, -torch.inf]]))
    return TaskResult(LanguageTask(kind, *languages, (0,), (0, 1, 2)), scores(0.5), {"q": 0.25}, ranking)


@pytest.mark.parametrize("bm25", [None, scores(0.25)])
def test_what_was_written_is_read(tmp_path, bm25):
    written = results(bm25=bm25)
    write_results(tmp_path / "new" / "folder", written, [task_result()])
    assert read_results(tmp_path / "new" / "folder") == written
    assert read_queries(tmp_path / "new" / "folder") == (
        QueryResult("monolingual", "de", "de", "q", 0.25, ("d", "a b", "c")),
    )


def test_metrics_json_has_the_documented_fields(tmp_path):
    write_results(tmp_path, results(bm25=scores(0.25)), [])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert list(content) == [
        "format",
        "started",
        "seconds",
        "model",
        "data",
        "settings",
        "tasks",
        "means",
        "bm25_means",
        "groups",
    ]
    assert content["means"] == {
        "monolingual": {"nDCG@10": pytest.approx(0.6), "Recall@100": 1, "MRR@10": pytest.approx(0.3)},
        "cross_lingual": {"nDCG@10": 0.4, "Recall@100": 1, "MRR@10": 0.2},
    }
    assert content["bm25_means"]["monolingual"]["nDCG@10"] == 0.25
    assert content["tasks"][0] == {
        "kind": "monolingual",
        "query_language": "de",
        "corpus_language": "de",
        "queries": 10,
        "documents": 100,
        "left_out_queries": 3,
        "scores": scores(0.5),
        "bm25": scores(0.25),
    }
    write_results(tmp_path, results(), [])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert "bm25_means" not in content
    assert "bm25" not in content["tasks"][0]


def test_a_mean_weighs_languages_not_queries():
    means = means_by_kind([("monolingual", {"m": 0.2}), ("all", {"m": 1.0}), ("monolingual", {"m": 0.8})])
    assert means == {"monolingual": {"m": pytest.approx(0.5)}, "all": {"m": 1.0}}


def test_the_run_file_keeps_the_ranking_for_tools_that_sort_again(tmp_path):
    """Equal scores would be sorted by descending document id."""
    tied = task_result(ids=("a", "b", "c"), order=(0, 1, 2), values=(0.5, 0.5, 0.5))
    write_results(tmp_path, results(), [tied])
    run = list(ir_measures.read_trec_run(str(tmp_path / "run" / "de-de.trec")))
    qrels = [ir_measures.Qrel("q", "a", 2), ir_measures.Qrel("q", "b", 1)]
    assert ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run) == {ir_measures.nDCG @ 10: 1.0}
    assert [row.score for row in run] == pytest.approx([0.5] * 3, abs=1e-6)


def test_run_files_have_six_columns(tmp_path):
    result = replace(task_result(languages=("de", "zh-CN")))
    write_results(tmp_path, replace(results(), model="my model"), [result])
    lines = (tmp_path / "run" / "de-zh-CN.trec").read_text().splitlines()
    assert [line.split(" ") for line in lines] == [
        ["q", "Q0", "d", "1", "0.75", "my%20model"],
        ["q", "Q0", "a%20b", "2", "0.74999994", "my%20model"],
        ["q", "Q0", "c", "3", "0.5", "my%20model"],
    ]


def test_overwriting_replaces_results_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_results(tmp_path, results(), [task_result(), task_result(languages=("ko", "en"))])
    write_results(tmp_path, results(), [task_result()])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "metrics.json",
        "notes.txt",
        "queries.jsonl",
        "run/de-de.trec",
    ]


def test_an_output_that_exists_is_refused(tmp_path):
    check_output(tmp_path / "new", overwrite=False)
    check_output(tmp_path, overwrite=True)
    with pytest.raises(UserError, match=r"already exists; .*--overwrite"):
        check_output(tmp_path, overwrite=False)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file"):
        check_output(file, overwrite=True)


def damaged(tmp_path, change):
    write_results(tmp_path, results(), [])
    content = json.loads((tmp_path / "metrics.json").read_text())
    change(content)
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), r"metrics.json: field 'format' is 2, this version reads 1"),
        (lambda c: c.pop("format"), r"field 'format' is None"),
        (lambda c: c.pop("seconds"), r"metrics.json: field 'seconds' is missing"),
        (lambda c: c.update(tasks={}), r"metrics.json: field 'tasks' is \{\}"),
        (lambda c: c["tasks"][1].update(queries="30"), r"metrics.json: tasks\[1\]: field 'queries' is '30'"),
        (lambda c: c["tasks"].append(None), r"metrics.json: tasks\[3\] is no object"),
    ],
)
def test_a_damaged_metrics_file_is_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_results(damaged(tmp_path, change))


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(UserError, match=r"metrics.json is missing; lit-retrofit evaluate"):
        read_results(tmp_path)
    with pytest.raises(UserError, match=r"queries.jsonl is missing; lit-retrofit evaluate"):
        read_queries(tmp_path)
    for name in "edcba":
        write_results(tmp_path / "several" / name, results(), [])
    message = r"several: no evaluation, but a folder with 5 \(a, b, c and 2 more\); give one of them, .*/a"
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / "several")
    write_results(tmp_path, results(), [task_result(), task_result()])
    for name, read, line in (("metrics.json", read_results, r"\d+"), ("queries.jsonl", read_queries, "2")):
        path = tmp_path / name
        path.write_text(path.read_text()[:-20])
        with pytest.raises(UserError, match=rf"{name}:{line}: not valid JSON .*--overwrite"):
            read(tmp_path)
    (tmp_path / "queries.jsonl").write_text("3\n")
    with pytest.raises(UserError, match=r"queries.jsonl:1: not a JSON object"):
        read_queries(tmp_path)
