"""The parts of the benchmark that need no training: what is hidden, and how gains are told."""

from __future__ import annotations

import json

from benchmarks.synthesis import TRAINED, hide_queries, parse_arms, real, table
from lit_retrofit.data.formats import read_records
from lit_retrofit.quickstart.embedded_data import resolve_data


def test_no_real_query_and_no_translation_is_left(tmp_path):
    rows = [json.loads(line) for line in hide_queries(tmp_path).read_text().splitlines()]
    records = read_records(resolve_data("quickstart:train"))[0]
    assert {row["id"] for row in rows} == {record.positives[0].id for record in records}
    assert all(set(row) == {"id", "text", "language"} for row in rows)


def test_the_real_queries_are_trained_on_without_their_translations(tmp_path):
    real(tmp_path / "real.jsonl", 0)
    records = read_records(tmp_path / "real.jsonl")[0]
    assert len({record.group for record in records}) == len({record.positives[0].id for record in records})


def test_gains_are_means_and_ranges_over_the_seeds(tmp_path):
    base = {**dict.fromkeys(TRAINED, 0.5), "six": 0.5, "ko, tr": 0.4, "across": 0.2}
    seeds = [({name: score + gain for name, score in base.items()}, 100) for gain in (0.01, 0.03)]
    lines = table(base, {"rules": seeds}, 30).splitlines()
    assert lines[-1] == "| rules | 100 |" + " +0.020 (+0.010 … +0.030) |" * 9
    assert lines[-2].endswith("| 0.400 | 0.200 |")
    assert [arm.name for arm in parse_arms(["gemma=x.jsonl"], tmp_path)] == ["rules", "gemma", "real queries"]
