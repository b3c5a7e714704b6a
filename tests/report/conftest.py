"""A small made-up run: two evaluations, the data they measure, a training folder, a mining summary."""

import csv
import json
import time
from types import SimpleNamespace

import pytest

PAIRS = [
    ("monolingual", "de", "de"),
    ("monolingual", "en", "en"),
    ("monolingual", "tr", "tr"),
    ("cross_lingual", "de", "en"),
    ("cross_lingual", "tr", "en"),
    ("cross_lingual", "en", "de"),
    ("cross_lingual", "en", "tr"),
]
BEFORE = [0.50, 0.70, 0.60, 0.20, 0.10, 0.30, 0.15]
AFTER = [0.60, 0.75, 0.58, 0.50, 0.25, 0.40, 0.35]
BM25 = [0.40, 0.80, 0.50, 0.10, 0.05, 0.12, 0.08]


def metrics(scores, bm25=None, **changes):
    tasks = []
    for at, (kind, source, target) in enumerate(PAIRS):
        task = {"kind": kind, "query_language": source, "corpus_language": target, "queries": 2}
        task |= {"documents": 4, "left_out_queries": 0, "scores": {"nDCG@10": scores[at], "Recall@100": 1.0}}
        tasks.append(task | ({"bm25": {"nDCG@10": bm25[at]}} if bm25 else {}))
    settings = {"split": None, "pivot": "en", "query_prompt": "query: "}
    content = {"format": 1, "started": time.time() - 100, "seconds": 20.5, "model": "some/model"}
    return content | {"data": "data", "settings": settings, "tasks": tasks} | changes


def query_line(kind, source, target, id, ndcg, top_ids):
    line = {"kind": kind, "query_language": source, "corpus_language": target, "query_id": id}
    return line | {"nDCG@10": ndcg, "top_ids": top_ids}


def write_evaluation(folder, content, queries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))


def write_runs(folder, scores):
    """A TREC run of each task; tasks without queries have an empty one."""
    (folder / "run").mkdir(exist_ok=True)
    for _, source, target in PAIRS:
        lines = [
            f"{query} Q0 {document} {rank} {score} model\n"
            for query, found in scores.get((source, target), {}).items()
            for rank, (document, score) in enumerate(found, start=1)
        ]
        (folder / "run" / f"{source}-{target}.trec").write_text("".join(lines))


def write_data(folder):
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"{letter}-{language}", "text": f"Document {letter} in {language}", "language": language}
        for language in ("de", "en", "tr")
        for letter in "abcd"
    ]
    documents[0]["text"] = "<img src=x onerror=alert(1)> " + "Wort " * 60
    queries = [
        {"_id": "q1", "text": "<script>alert('q1')</script> & more", "language": "de"},
        {"_id": "q2", "text": "مرحبا", "language": "de"},
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = [f"{query}\ta-{language}\t1\n" for query in ("q1", "q2") for language in ("de", "en")]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))


def write_training(folder, rows=((0, 3.0), (10, 2.0), (20, 1.0))):
    folder.mkdir()
    data = {"records": 30, "languages": {"en": 20, "de": 10}, "sources": ["train.jsonl"]}
    card = {"format": 1, "started": time.time() - 60, "seconds": 40.0, "steps": 21, "data": data}
    card |= {"encoder": {"model": "some/model", "lora": {"r": 16}}, "precision": "32-true"}
    (folder / "training.json").write_text(json.dumps(card))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lr-AdamW", "step", "train/loss", "val/nDCG@10"])
        writer.writerows(
            [[0.1, 0, "", ""], *([("", step, loss, "") for step, loss in rows]), ["", 20, "", 0.5]]
        )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The folder of the run; the data is named relative to it, as the evaluations do."""
    monkeypatch.chdir(tmp_path)
    paths = SimpleNamespace(
        root=tmp_path, **{n: tmp_path / n for n in ("before", "after", "fit", "data", "out")}
    )
    old = [
        query_line("monolingual", "de", "de", "q1", 0.0, ["b-de", "c-de", "d-de"]),
        query_line("monolingual", "de", "de", "q2", 1.0, ["a-de", "b-de", "c-de", "d-de"]),
        query_line("cross_lingual", "de", "en", "q1", 0.5, ["b-en", "c-en", "d-en", "a-en"]),
        query_line("cross_lingual", "de", "en", "q2", 1.0, ["a-en", "b-en", "c-en", "d-en"]),
    ]
    new = [
        query_line("monolingual", "de", "de", "q1", 1.0, ["a-de", "b-de", "c-de"]),
        query_line("monolingual", "de", "de", "q2", 0.5, ["b-de", "c-de", "a-de", "d-de"]),
        query_line("cross_lingual", "de", "en", "q1", 0.5, ["c-en", "b-en", "d-en", "a-en"]),
        query_line("cross_lingual", "de", "en", "q2", 1.0, ["a-en", "b-en", "c-en"]),
    ]
    write_evaluation(paths.before, metrics(BEFORE, BM25), old)
    write_evaluation(paths.after, metrics(AFTER, model="runs/fit"), new)
    old_run = {
        "q1": [("b-de", 0.9), ("c-de", 0.8), ("d-de", 0.7), ("a-de", 0.1)],
        "q2": [("a-de", 0.95), ("b-de", 0.6)],
    }
    new_run = {"q1": [("a-de", 0.8), ("b-de", 0.3)], "q2": [("b-de", 0.5), ("a-de", 0.4), ("c-de", 0.2)]}
    write_runs(paths.before, {("de", "de"): old_run})
    write_runs(paths.after, {("de", "de"): new_run})
    write_data(paths.data)
    write_training(paths.fit)
    paths.mining = tmp_path / "mined.summary.json"
    mined = {"started": time.time() - 500, "seconds": 9.0, "model": "some/model", "negatives": 77}
    mined |= {"records": {"read": 30, "kept": 28, "dropped": 2}, "rules": {"relative_margin": 0.95}}
    mined |= {"candidates": {"examined": 300, "identity": 31, "relative_margin": 102, "eligible": 167}}
    paths.mining.write_text(json.dumps(mined))
    paths.pairs, paths.metrics, paths.query_line = PAIRS, metrics, query_line
    paths.write_evaluation = write_evaluation
    return paths
