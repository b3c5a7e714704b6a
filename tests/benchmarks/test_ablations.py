"""Ablations: shipped files can run, numbers are those of an independent computation, runs go on."""

from __future__ import annotations

import json
import statistics
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.ablations import running
from benchmarks.ablations.__main__ import main
from benchmarks.ablations.data import sample_pages
from benchmarks.ablations.plan import check_settings, read_ablation
from benchmarks.ablations.scoring import compare
from benchmarks.ablations.selecting import translations, with_random_negatives
from lit_retrofit.cli import main as cli
from lit_retrofit.data.records import Document, Record
from lit_retrofit.errors import UserError

FILES = sorted(Path("configs/ablations").glob("*.yaml"))
EXAMPLE = """
question: Which temperature?
paper: uses 0.02.
base: configs/recipes/quickstart.yaml
baseline: low
settings:
  data.options.validation_share: 0
  data.sampling.batch_size: 8
  model.encoder.query_max_length: 16
  model.encoder.document_max_length: 24
  data.options.training_document_length: 24
  data.options.train: ["{{train}}"]
arms:
  - {{name: low, settings: {{model.objective.temperature: 0.02}}}}
  - {{name: high, settings: {{{setting}: {value}}}}}
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_ablation_is_accepted(path):
    ablation = read_ablation(path)
    names = {name: f"{name}.jsonl" for name in ("train", "all", "model", *ablation.prepare)}
    check_settings(ablation, names)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("baseline: low", "baseline: none", "field 'baseline' is 'none'; name one of the arms, low, high"),
        ("paper:", "papers:", "field 'papers' is unknown"),
        ("{train}", "{mined}", "'{mined}' is not prepared; there are train, all, model"),
        ("name: high", "name: low", "has a name twice"),
        ("model.objective.temperature: 0.1", "seed_everything: 1", "'seed_everything' is set by the runner"),
        ("arms:", "prepare: {x: [rm, -r]}\narms:", "prepare 'x' is neither a selection nor the words of"),
        ("arms:", "prepare: {x: {lang: [de]}}\narms:", "prepare 'x': .*'lang'"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(tmp_path, old, new, words):
    text = EXAMPLE.format(setting="model.objective.temperature", value=0.1)
    assert old in text
    path = tmp_path / "a.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=words) as caught:
        read_ablation(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["model.objective.temprature", "data.options.nothing"])
def test_a_setting_that_fit_does_not_know_is_refused(tmp_path, setting):
    path = tmp_path / "a.yaml"
    path.write_text(EXAMPLE.format(setting=setting, value=0.1))
    with pytest.raises(UserError, match=f"arm 'high': .*{setting}") as caught:
        check_settings(read_ablation(path), {"train": "t.jsonl"})
    assert "\n" not in str(caught.value)


def test_means_differences_and_intervals():
    tasks = [("monolingual", "de", "de"), ("monolingual", "en", "en")]
    rng = np.random.default_rng(0)
    # (arm, seed, task, query); tasks of different sizes weigh the same
    values = {task: rng.random((2, 2, size)) for task, size in zip(tasks, (5, 40), strict=True)}

    def side(arm):
        return [
            {t: {f"q{i}": float(v) for i, v in enumerate(values[t][arm, seed])} for t in tasks}
            for seed in (0, 1)
        ]

    found = compare(side(0), side(1))
    per_seed = [np.mean([values[t][0, seed].mean() for t in tasks]) for seed in (0, 1)]
    assert found.per_seed == pytest.approx(per_seed)
    assert found.spread == pytest.approx(statistics.stdev(per_seed))
    paired = [(values[t][0] - values[t][1]).mean(axis=0) for t in tasks]
    assert found.difference == pytest.approx(np.mean([p.mean() for p in paired]))
    drawn = [np.mean([rng.choice(p, len(p)).mean() for p in paired]) for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    alone = compare(side(0), None)
    assert alone.difference is None and alone.mean == found.mean


def records(languages=("de", "en", "fr"), pages=12):
    return [
        Record(f"{g}{lang}", f"question {g} {lang}", (Document(f"d{g}{lang}", f"page {g} {lang}", lang),),
               language=lang, task="title", group=f"g{g}")
        for g in range(pages) for lang in languages
    ]  # fmt: skip


def test_samples_are_of_whole_pages_and_of_every_language():
    rare = Record("r", "q", (Document("dr", "page r", "hi"),), language="hi", group="rare")
    found = sample_pages([*records(), rare], 7)
    assert {r.language for r in found} == {"de", "en", "fr", "hi"}
    groups = [r.group for r in found if r.group != "rare"]
    assert len(groups) == 9 and all(groups.count(g) == 3 for g in groups)
    assert found == sample_pages([*records(), rare], 7)


def test_translations_and_random_negatives():
    import random

    turned = translations(records(), random.Random(0))
    assert len(turned) == 36
    for record in turned:
        number = record.group[1:]
        assert record.query == f"page {number} {record.language}"
        assert record.positives[0].text.startswith(f"page {number} ")
        assert record.positives[0].language != record.language
    for record in with_random_negatives(records(), 4, random.Random(0)):
        texts = {d.text for d in record.negatives}
        assert len(texts) == 4 and record.positives[0].text not in texts
        assert {d.language for d in record.negatives} == {record.language}


@pytest.fixture
def in_this_process(monkeypatch):
    """Commands run here, for the time that Python takes to start; tells which ones did."""
    ran = []

    def run(*words, log=None):
        ran.append(str(words[0]))
        if any("temperature=7" in str(word) for word in words):
            log.write_text("Traceback\nRuntimeError: out of everything\n")
            raise subprocess.CalledProcessError(1, "fit")
        assert cli([str(word) for word in words]) == 0

    monkeypatch.setattr(running, "lit_retrofit", run)
    return ran


@pytest.mark.slow
def test_arms_are_run_once_and_one_may_fail(tmp_path, bert_folder, in_this_process, capsys):
    rows = [
        {"query": r.query, "positive": r.positives[0].text, "language": r.language, "split": split,
         "document_id": f"{split}{r.positives[0].id}", "parallel_id": f"{split}{r.group}", "group": "all"}
        for split in ("train", "dev") for r in records()
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    words = [
        "--pairs", str(tmp_path / "pairs.parquet"), "--model", str(bert_folder), "--queries", "16",
        "--max-length", "24",
        "--seeds", "0", "1", "--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    path = tmp_path / "heat.yaml"
    path.write_text(EXAMPLE.format(setting="model.objective.temperature", value=0.5))
    assert main([str(path), *words]) == 0
    assert in_this_process.count("fit") == 4 and in_this_process.count("evaluate") == 10
    found = json.loads((tmp_path / "out" / "heat.json").read_text())["arms"]
    assert [run["steps"] for run in found["high"]["runs"]] == [2, 2]
    low = found["low"]["scores"]["dev monolingual"]
    folders = [json.loads(f.read_text()) for f in (tmp_path / "runs").glob("scores-fit-*/metrics.json")]
    means = [f["means"]["monolingual"]["nDCG@10"] for f in folders if f["data"].endswith("dev")]
    assert all(any(abs(value - mean) < 1e-9 for mean in means) for value in low["per_seed"])
    table = (tmp_path / "out" / "heat.md").read_text()
    assert "| *low* | 2 |" in table and "dev cross-lingual" in table
    assert ("heat.svg" in table) == (find_spec("matplotlib") is not None)

    in_this_process.clear()
    assert main([str(path), *words]) == 0
    assert in_this_process == []  # nothing is run again
    path.write_text(EXAMPLE.format(setting="model.objective.temperature", value=7))
    assert main([str(path), *words]) == 1
    assert in_this_process == ["fit", "fit"]
    assert "high, seed 1: failed: RuntimeError: out of everything" in capsys.readouterr().err
    table = (tmp_path / "out" / "heat.md").read_text()
    assert "- high, run 0: failed: RuntimeError: out of everything" in table and "| *low* |" in table
