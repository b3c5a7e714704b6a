import io
import sys

import mteb as library
import numpy as np
import pytest
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from rich.console import Console

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation import mteb_command
from lit_retrofit.evaluation.mteb_command import (
    RETRIEVAL_TASKS,
    MtebScore,
    _choose_tasks,
    means,
    mteb,
    show_scores,
)


def test_the_18_tasks_are_those_of_the_benchmark():
    tasks = library.get_benchmark("MTEB(Multilingual, v1)").tasks
    retrieval = {task.metadata.name for task in tasks if task.metadata.type == "Retrieval"}
    assert retrieval == set(RETRIEVAL_TASKS)
    assert len(RETRIEVAL_TASKS) == 18


def test_benchmarks_tasks_and_languages_are_chosen():
    assert [t.metadata.name for t in _choose_tasks(library, None, ["SciFact"], None)] == ["SciFact"]
    found = _choose_tasks(library, "retrieval-18", [], ["deu"])
    names = [task.metadata.name for task in found]
    assert "MIRACLRetrievalHardNegatives" in names and "SCIDOCS" not in names
    assert found[names.index("MIRACLRetrievalHardNegatives")].hf_subsets == ["de"]
    assert len(_choose_tasks(library, "MTEB(Multilingual, v1)", [], None)) > 100


@pytest.mark.parametrize(
    ("benchmark", "tasks", "languages", "message"),
    [
        (None, [], None, "give either --benchmark or --tasks"),
        ("retrieval-18", ["SciFact"], None, "give either --benchmark or --tasks"),
        ("MTEB(Klingon)", [], None, "mteb knows no such benchmark or task .*Klingon"),
        (None, ["SciFakt"], None, "mteb knows no such benchmark or task .*SciFakt"),
        (None, ["SciFact"], ["deu"], "no task is in the languages deu"),
    ],
)
def test_unknown_names(benchmark, tasks, languages, message):
    with pytest.raises(UserError, match=message):
        _choose_tasks(library, benchmark, tasks, languages)


def test_means_keep_multilingual_retrieval_apart():
    scores = [
        MtebScore("A", "Retrieval", ("eng",), 50.0),
        MtebScore("B", "Retrieval", ("deu", "eng"), 30.0),
        MtebScore("C", "Retrieval", ("zho",), 20.0),
        MtebScore("D", "Clustering", ("eng",), 10.0),
    ]
    assert means(scores) == {
        "all": (4, 27.5),
        "Retrieval": (3, pytest.approx(100 / 3)),
        "Clustering": (1, 10.0),
        "Retrieval, not English alone": (2, 25.0),
    }


def test_published_scores_stand_beside_the_18_tasks():
    scores = [MtebScore(task, "Retrieval", ("eng",), 58.0) for task in RETRIEVAL_TASKS]
    console = Console(file=io.StringIO(), width=150)
    show_scores("our/model", scores, console)
    text = console.file.getvalue()
    lines = text.split("published, retrieval-18")[1].splitlines()
    order = [line.split("  ")[0].strip() for line in lines]
    assert (
        order.index("SFR-Embedding-Mistral") < order.index("our/model") < order.index("gte-multilingual-base")
    )
    incomplete = Console(file=io.StringIO(), width=150)
    show_scores("our/model", scores[1:], incomplete)
    assert "published" not in incomplete.file.getvalue()


def test_scores_of_some_languages_do_not_stand_among_those_of_all():
    scores = [MtebScore(task, "Retrieval", ("eng",), 58.0) for task in RETRIEVAL_TASKS]
    console = Console(file=io.StringIO(), width=150)
    show_scores("our/model", scores, console, ["eng", "deu"])
    *_, line = console.file.getvalue().splitlines()
    assert line == (
        "published scores of retrieval-18 are not shown: they are over all languages, not over eng, deu"
    )
    assert "multilingual-e5-small" not in console.file.getvalue()


def local_task(name, fails=False):
    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            description="A local task.",
            dataset={"path": "local/none", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["deu-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_):
            if fails:
                raise OSError("the hub is away")
            rng = np.random.default_rng(0)
            words = ["alpha", "beta", "gamma", "delta", "page", "text"]
            corpus = {f"d{n}": " ".join(rng.choice(words, 4)) + f" {n}" for n in range(20)}
            self.corpus = {"test": corpus}
            self.queries = {"test": {f"q{n}": corpus[f"d{n}"] for n in range(5)}}
            self.relevant_docs = {"test": {f"q{n}": {f"d{n}": 1} for n in range(5)}}
            self.data_loaded = True

    return Local()


def test_the_command_goes_on_and_repeats_nothing(bert_folder, tmp_path, monkeypatch, capsys):
    tasks = [local_task("LocalOne"), local_task("LocalTwo", fails=True), local_task("LocalThree")]
    monkeypatch.setattr(mteb_command, "_choose_tasks", lambda *_: tasks)
    with pytest.raises(UserError, match=r"LocalTwo failed \(the hub is away\), and 0 other tasks"):
        mteb(str(bert_folder), output=tmp_path, tasks="x")
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("Local*.json")}
    assert written.keys() == {"LocalOne.json", "LocalThree.json"}
    tasks[1] = local_task("LocalTwo")
    scores = mteb(str(bert_folder), output=tmp_path, tasks="x")
    assert [one.task for one in scores] == ["LocalOne", "LocalTwo", "LocalThree"]
    assert scores[0].languages == ("deu",)
    assert 0 < scores[0].score == scores[1].score <= 100
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("Local*.json")}
    assert again.items() >= written.items()
    assert "mean, all" in capsys.readouterr().out
    monkeypatch.setattr(mteb_command, "RETRIEVAL_TASKS", ("LocalOne", "LocalThree"))
    mteb(str(bert_folder), output=tmp_path, tasks="x", languages=["deu"])
    assert "published scores of retrieval-18 are not shown" in capsys.readouterr().out


def test_without_mteb_the_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(UserError, match=r"needs the package mteb: pip install 'lit-retrofit\[eval\]'"):
        mteb("m", output=tmp_path, tasks="SciFact")
