import json
from pathlib import Path

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.report.locating import evaluation_of, locate


def write(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path):
    """A folder as the quickstart leaves it, moved from where it was made."""
    home = tmp_path / "mine"
    write(home / "before" / "metrics.json", {"model": "some/base"})
    write(home / "after" / "metrics.json", {"model": "runs/elsewhere/fit"})
    write(home / "fit" / "training.json", {"data": {"sources": ["runs/elsewhere/mined.jsonl"]}})
    (home / "fit" / "checkpoints").mkdir()
    write(home / "mined.summary.json", {"candidates": {}, "output": "runs/elsewhere/mined.jsonl"})
    write(home / "cleaned.summary.json", {"rules": {}})
    write(home / "summary.json", {})
    return home


def test_a_run_is_a_folder_with_all_its_parts(run):
    found = locate(run)
    assert (found.name, found.home) == ("mine", run)
    assert (found.before, found.after) == (run / "before", run / "after")
    assert (found.training, found.mining) == (run / "fit", run / "mined.summary.json")


def test_a_run_folder_of_fit_lies_beside_its_evaluations(run):
    found = locate(run / "fit")
    assert (found.name, found.home.resolve()) == ("fit", run.resolve())
    assert found.after == run.resolve() / "after" and found.training == run / "fit"
    write(run / "other" / "training.json", {})
    with pytest.raises(
        UserError, match=r"is the evaluation of runs/elsewhere/fit, not of .*other; .*--before"
    ):
        locate(run / "other")


def test_of_several_trainings_the_evaluated_one_counts(run):
    write(run / "again" / "training.json", {})
    assert locate(run).training == run / "fit"
    write(run / "after" / "metrics.json", {"model": "runs/merged"})
    with pytest.raises(UserError, match=r"has several runs of fit \(again, fit\); name one with --training"):
        locate(run)


def test_of_several_minings_the_one_trained_on_counts(run):
    write(run / "naive.summary.json", {"candidates": {}, "output": "naive.jsonl"})
    assert locate(run).mining == run / "mined.summary.json"
    write(run / "fit" / "training.json", {"data": {"sources": ["else.jsonl"]}})
    with pytest.raises(UserError, match=r"several summaries of mine \(mined.*, naive.*\); .*--mining"):
        locate(run)


def test_evaluations_alone_are_enough(run):
    for path in (run / "fit" / "training.json", run / "mined.summary.json", run / "cleaned.summary.json"):
        path.unlink()
    (run / "fit" / "checkpoints").rmdir()
    found = locate(run)
    assert found.training is None and found.mining is None


def test_an_interrupted_training_is_found_so_that_it_is_told(run):
    (run / "fit" / "training.json").unlink()
    assert locate(run).training == run / "fit"


def test_what_is_missing_is_told(run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; give a folder with the evaluations"):
        locate(tmp_path / "nowhere")
    (run / "after" / "metrics.json").unlink()
    (run / "after").rmdir()
    with pytest.raises(UserError, match=r"mine/after: no such folder; write it with lit-retrofit evaluate"):
        locate(run)


def test_a_side_is_an_evaluation_or_a_run(run, monkeypatch):
    assert evaluation_of(run) == (run / "after", run / "fit")
    assert evaluation_of(run / "before") == (run / "before", None)
    write(run / "after" / "metrics.json", {"model": str(run / "fit")})
    assert evaluation_of(run / "after") == (run / "after", run / "fit")


def test_a_folder_of_several_benchmarks_is_told(tmp_path):
    write(tmp_path / "nano" / "nano-nq" / "metrics.json", {})
    write(tmp_path / "nano" / "benchmarks.json", {})
    with pytest.raises(UserError, match=r"nano: no evaluation, but a folder with 1 \(nano-nq\); give"):
        evaluation_of(tmp_path / "nano")


def merged(folder: Path, *models: str) -> Path:
    """What `merge` leaves of one run or several: of one it has the training.json, but no log."""
    write(folder / "merging.json", {"models": list(models)})
    (folder / "checkpoints").mkdir()
    if len(models) == 1:
        write(folder / "training.json", {"data": {"sources": ["runs/elsewhere/mined.jsonl"]}})
    return folder


@pytest.mark.parametrize("model", ["runs/elsewhere/fit", "runs/elsewhere/fit/checkpoints/last.ckpt"])
def test_of_a_merge_the_run_that_it_was_merged_from_counts(run, model):
    merged(run / "merged", model)
    write(run / "after" / "metrics.json", {"model": "runs/elsewhere/merged"})
    assert locate(run).training == run / "fit" and locate(run / "merged").training == run.resolve() / "fit"
    merged(run / "again", "runs/elsewhere/merged")  # a merge of the merge
    write(run / "after" / "metrics.json", {"model": str(run / "again")})
    assert locate(run).training == run / "fit"
    assert evaluation_of(run / "after") == (run / "after", run / "fit")
    write(run / "after" / "metrics.json", {"model": "runs/elsewhere/export"})
    assert locate(run).training == run / "fit"  # the merges beside it are no runs of their own


def test_a_merge_whose_run_is_gone_tells_what_was_trained_on(run):
    merged(run / "merged", "runs/elsewhere/other")
    write(run / "after" / "metrics.json", {"model": "runs/elsewhere/merged"})
    assert locate(run).training == run / "merged"
    merged(run / "itself", str(run / "itself"))
    write(run / "after" / "metrics.json", {"model": str(run / "itself")})
    assert locate(run).training == run / "itself"


def test_of_a_merge_of_several_runs_one_is_named(run):
    write(run / "again" / "training.json", {})
    merged(run / "merged", "runs/elsewhere/fit", "runs/elsewhere/again", "some/hub-model")
    write(run / "after" / "metrics.json", {"model": str(run / "merged")})
    with pytest.raises(
        UserError, match=r"merged was merged from several runs of fit \(fit, again\); .*--training"
    ):
        locate(run)
    assert locate(run, training=run / "again").training == run / "again"
    assert evaluation_of(run / "after") == (run / "after", None)
