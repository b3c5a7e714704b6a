"""Cleaning's benchmarks at a small size: what they measure is there."""

from __future__ import annotations

import pytest

from benchmarks.cleaning.pairs import write_pairs
from benchmarks.cleaning.quality import table as quality_table
from benchmarks.cleaning.speed import JOBS, PEER, peer, run_job, table


def test_near_duplicates_are_as_many_as_those_of_the_usual_loop(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_pairs("quickstart:train", 400, path)
    figures = {name: run_job(name, path, 1) for name in ("+ near duplicates (document)", PEER)}
    ours, theirs = (job["kept"] for job in figures.values())
    assert theirs == peer(path)
    assert 200 < ours < 330 and abs(ours - theirs) <= 0.03 * 400
    lines = table(figures, 1).splitlines()
    assert len(lines) == 4 and f"| {ours} |" in lines[2]


def test_pairs_are_the_same_for_a_seed_and_partly_repeated(tmp_path):
    for name in ("a", "b"):
        write_pairs("quickstart:train", 200, tmp_path / name, seed=3)
    lines = (tmp_path / "a").read_text().splitlines()
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert len(lines) == 200 and 150 < len(set(lines)) < 185


@pytest.mark.parametrize("name", JOBS)
def test_every_job_names_options_of_the_command(name, tmp_path):
    import inspect

    from lit_retrofit.cleaning.clean import clean

    assert set(JOBS[name]) <= set(inspect.signature(clean).parameters)


def test_the_quality_table_has_means_and_deviations():
    rows = {"nothing": [{"dev": 0.5}], "train": [{"dev": 0.6}, {"dev": 0.7}]}
    lines = quality_table({"train": 0.75}, rows).splitlines()
    assert lines[2] == "| nothing | – | 0.5000 |"
    assert lines[3] == "| train | 75.0% | 0.6500 ± 0.0707 |"
