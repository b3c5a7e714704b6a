from pathlib import Path

import pytest

from lit_retrofit.data.hub_retrieval import HubSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation import benchmarks
from lit_retrofit.evaluation.benchmarks import find_benchmarks
from lit_retrofit.evaluation.candidates import read_candidates
from lit_retrofit.evaluation.hub_sets import COLLECTIONS, SETS


@pytest.fixture
def asked(monkeypatch):
    """What would be loaded from the hub."""
    places = []
    monkeypatch.setattr(benchmarks, "read_hub_set", lambda hub, name: places.append((hub, name)))
    monkeypatch.setattr(benchmarks, "read_hub_candidates", lambda hub: places.append((hub, "candidates")))
    monkeypatch.setattr(
        benchmarks, "read_belebele", lambda path, languages, revision: places.append((path, languages))
    )
    return places


def load(found):
    for benchmark in found:
        for part in benchmark.parts:
            part.load()
            if part.load_candidates:
                part.load_candidates()


def test_languages_of_a_benchmark_are_its_parts(asked):
    (found,) = find_benchmarks("miracl:sw,te")
    load([found])
    task = SETS["miracl"]
    assert found.name == "miracl"
    assert asked == [
        (HubSet(task.path, "dev", task.revision, "sw", "sw"), "miracl"),
        (HubSet(task.path, "dev", task.revision, "te", "te"), "miracl"),
    ]
    assert len(find_benchmarks("miracl")[0].parts) == 18
    assert len(find_benchmarks("mldr")[0].parts) == 13


def test_tydi_names_its_languages_in_words(asked):
    load(find_benchmarks("mrtydi:korean", split="dev"))
    assert [(hub.subset, hub.language, hub.split) for hub, _ in asked] == [("korean", "ko", "dev")]


def test_reranking_sets_bring_their_candidates(asked):
    load(find_benchmarks("miracl-reranking:yo"))
    assert [what for _, what in asked] == ["miracl-reranking", "candidates"]


def test_collections_are_several_benchmarks(asked):
    assert [b.name for b in find_benchmarks("beir")] == list(COLLECTIONS["beir"])
    assert len(find_benchmarks("nanobeir")) == len(find_benchmarks("nanobeir-multilingual")) == 13
    (one,) = find_benchmarks("beir:beir-scifact")
    assert one.name == "beir-scifact"
    several = find_benchmarks("nanobeir-multilingual:de,ko,nanomulti-scifact,nanomulti-nq")
    assert [b.name for b in several] == ["nanomulti-scifact", "nanomulti-nq"]
    load(several[:1])
    assert [(hub.subset, hub.path) for hub, _ in asked] == [
        (language, "mteb/MultilingualNanoSciFactRetrieval") for language in ("de", "ko")
    ]


def test_belebele_has_its_own_pivot(asked):
    (found,) = find_benchmarks("belebele:deu_Latn,eng_Latn")
    load([found])
    assert found.pivot == "eng_Latn"
    assert asked == [("mteb/belebele", ("deu_Latn", "eng_Latn"))]


def test_any_set_in_mtebs_layout(asked):
    (found,) = find_benchmarks("hf:me/mine:de")
    load([found])
    assert asked == [(HubSet("me/mine", subset="de"), "hf:me/mine:de")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("mirakl", "mirakl: no such folder or benchmark; give a BEIR folder, .*miracl, mrtydi, mldr, beir"),
        ("miracl:xx", "miracl:xx: no language 'xx'; there are ar, bn, de"),
        ("belebele:de", "no language 'de'; there are acm_Arab"),
        ("beir:msmarco", "no data set 'msmarco'; there are beir-arguana"),
        ("beir-nq:de", "beir-nq has no languages to choose from"),
        ("quickstart:dev", "no such embedded data"),
    ],
)
def test_unknown_names(data, message):
    with pytest.raises(UserError, match=message):
        find_benchmarks(data)


@pytest.mark.parametrize("options", [{"split": "dev"}, {"candidates": Path("run.trec")}])
def test_belebele_has_one_split_and_is_searched(options):
    with pytest.raises(UserError, match="belebele: has one split, test, and is searched; leave out"):
        find_benchmarks("belebele", **options)
    assert len(find_benchmarks("belebele", split="test")) == 1


def test_a_folder_is_read_at_once(tmp_path):
    with pytest.raises(UserError, match=r"corpus.jsonl: missing"):
        find_benchmarks(str(tmp_path))


def test_the_mteb_tasks_are_those_of_the_table():
    mteb = pytest.importorskip("mteb")
    names = {"miracl": "MIRACLRetrieval", "miracl-hard": "MIRACLRetrievalHardNegatives"}
    names |= {"mrtydi": "MrTidyRetrieval", "mldr": "MultiLongDocRetrieval", "beir-scifact": "SciFact"}
    names |= {"miracl-reranking": "MIRACLReranking", "wikipedia-reranking": "WikipediaRerankingMultilingual"}
    names |= {"nano-nq": "NanoNQRetrieval", "nanomulti-nq": "MultilingualNanoNQRetrieval"}
    names |= {"beir-msmarco": "MSMARCO"}
    for ours, theirs in names.items():
        task, metadata = SETS[ours], mteb.get_task(theirs).metadata
        assert (task.path, task.revision) == (metadata.dataset["path"], metadata.dataset["revision"]), ours
        assert task.split in metadata.eval_splits, ours
        if metadata.is_multilingual:
            assert task.languages.keys() == metadata.eval_langs.keys(), ours


def test_candidates_are_a_trec_run(tmp_path):
    path = tmp_path / "run.trec"
    path.write_text("q1 Q0 d2 1 0.5 x\nq1 Q0 d1 2 0.4 x\n\nq2 Q0 d1 1 9 x\n")
    assert read_candidates(path) == {"q1": ("d2", "d1"), "q2": ("d1",)}
    path.write_text("q1 Q0 d2 1 0.5 x\nq1\td1\t1\n")
    with pytest.raises(UserError, match=r"run.trec:2: 3 columns; a TREC run has six"):
        read_candidates(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="no candidates"):
        read_candidates(path)
    with pytest.raises(UserError, match="no such file"):
        read_candidates(tmp_path / "none")
