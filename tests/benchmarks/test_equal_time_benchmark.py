"""The equal-time benchmark's table, its baselines and what the peer is given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.ablations.data import Data
from benchmarks.equal_time.__main__ import _bm25
from benchmarks.equal_time.peer import EPOCHS, Shared, StopAtTime, _rows
from benchmarks.equal_time.report import BASE, OURS, Row, markdown, summary, with_all_tasks
from lit_retrofit.data.formats import read_records
from lit_retrofit.evaluation.evaluate import evaluate
from lit_retrofit.quickstart.embedded_data import resolve_data

TASKS = [("monolingual", "de", "de"), ("monolingual", "en", "en")]


def queries(*means: float) -> dict:
    """Two queries of each task, around a mean."""
    return {"dev monolingual": {t: {"a": m - 0.1, "b": m + 0.1} for t, m in zip(TASKS, means, strict=True)}}


def test_our_lead_is_taken_query_by_query():
    rows = {BASE: Row([queries(0.5, 0.6)]), "peer": Row(), OURS: Row()}
    rows["peer"].add(queries(0.6, 0.7), 30, 99.0)
    for seed in (0.70, 0.72):
        rows[OURS].add(queries(seed, 0.8), 40, 98.0)
    found = summary(rows)
    base, peer, ours = (found[name]["scores"]["dev monolingual"] for name in (BASE, "peer", OURS))
    assert [base["mean"], peer["mean"], ours["mean"]] == pytest.approx([0.55, 0.65, 0.755])
    assert [base["difference"], peer["difference"]] == pytest.approx([0.205, 0.105])
    assert base["low"] == pytest.approx(base["high"])  # every query of a task is as far ahead
    facts = {
        "command": "python -m benchmarks.equal_time", "seconds": 100.0, "seeds": [0, 1], "data": "pairs",
        "machine": {"processor": "a CPU", "threads": 2, "torch": "2", "sentence-transformers": "6"},
    }  # fmt: skip
    lines = markdown(facts, found).splitlines()
    assert "| untouched base |  |  | 0.5500 (+0.2050; +0.2050 … +0.2050) |" in lines
    assert "| sentence-transformers, peer | 30 | 99 s | 0.6500 (+0.1050; +0.1050 … +0.1050) |" in lines
    assert "| lit-retrofit | 40 | 98 s | **0.7550** |" in lines


def test_all_tasks_of_a_test_set_have_a_column_too():
    crossed = {("cross_lingual", "de", "en"): {"a": 0.2, "b": 0.4}}
    found = with_all_tasks({**queries(0.5, 0.7), "dev cross-lingual": crossed, "other monolingual": crossed})
    assert list(found) == [
        "dev all tasks", "other all tasks", "dev monolingual", "dev cross-lingual", "other monolingual",
    ]  # fmt: skip
    score = summary({OURS: Row([found])})[OURS]["scores"]["dev all tasks"]
    assert score["mean"] == pytest.approx((0.5 + 0.7 + 0.3) / 3)
    assert found["other all tasks"] == crossed


def test_bm25_is_what_evaluate_says_of_it(bert_folder, tmp_path):
    found = _bm25(Data(tmp_path, tmp_path, resolve_data("quickstart:test"), ""))
    told = evaluate(str(bert_folder), data="quickstart:test", bm25=True, output=tmp_path / "scores")
    for column, kind in (("dev monolingual", "monolingual"), ("quickstart:test monolingual", "monolingual")):
        means = [np.mean(list(task.values())) for task in found[column].values()]
        assert np.mean(means) == pytest.approx(told.bm25_means[kind]["nDCG@10"], abs=1e-9)


def test_the_peer_gets_every_record_each_epoch_some_across_languages():
    shared = Shared(
        {"data": {"sampling": {"cross_lingual": 0.3}}}, resolve_data("quickstart:train"), "", False, 1.0, 0
    )
    records, rows = read_records(shared.records)[0], _rows(shared)
    assert len(rows) == EPOCHS * len(records)
    assert sorted(rows["anchor"][: len(records)]) == sorted("query: " + record.query for record in records)
    own = {("query: " + r.query, "passage: " + r.positives[0].text) for r in records}
    pairs = list(zip(rows["anchor"], rows["positive"], strict=True))
    assert 0.2 < sum(pair not in own for pair in pairs) / len(pairs) < 0.35


def test_the_peer_is_stopped_when_its_time_is_over():
    clock, control = StopAtTime(0.0), SimpleNamespace(should_training_stop=False)
    clock.on_train_begin()
    clock.on_step_end(None, None, control)
    assert control.should_training_stop and len(clock.step_ends) == 1
