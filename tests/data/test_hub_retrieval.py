"""Sets in mteb's layout: local folders that `datasets` reads as it reads the hub's."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from lit_retrofit.data.hub_retrieval import HubSet, read_belebele, read_hub_candidates, read_hub_set
from lit_retrofit.data.records import Document, Query
from lit_retrofit.errors import UserError

CORPUS = [
    {"_id": "d1", "title": "Albedo", "text": "The share of light."},
    {"_id": "d2", "title": "", "text": "Moss."},
    {"_id": "d3", "title": "", "text": " "},
]
QUERIES = [{"_id": "q1", "text": "what is albedo"}, {"_id": "q2", "text": "moss"}, {"_id": "q3", "text": "?"}]
QRELS = [
    {"query-id": "q1", "corpus-id": "d1", "score": 2},
    {"query-id": "q1", "corpus-id": "d2", "score": 0},
    {"query-id": "q2", "corpus-id": "d2", "score": 1},
    {"query-id": "q2", "corpus-id": "nowhere", "score": 1},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_hub(folder: Path, configs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """A data set of several configurations and splits, as its README declares them on the hub."""
    folder.mkdir()
    head = ["---", "configs:"]
    for config, splits in configs.items():
        head += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            name = f"{config}-{split}.jsonl"
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
            head += [f"  - split: {split}", f"    path: {name}"]
    (folder / "README.md").write_text("\n".join([*head, "---", ""]))
    return str(folder)


def test_a_single_set_with_qrels_as_default(tmp_path, caplog):
    path = write_hub(
        tmp_path / "scifact",
        {
            "corpus": {"corpus": CORPUS},
            "queries": {"queries": QUERIES},
            "default": {"train": QRELS[:1], "test": QRELS},
        },
    )
    with caplog.at_level(logging.WARNING):
        found = read_hub_set(HubSet(path, language="en"), name="beir-scifact")
    assert found.name == "beir-scifact"
    assert found.corpus == (
        Document("d1", "Albedo The share of light.", "en"),
        Document("d2", "Moss.", "en"),
    )
    assert found.queries == (Query("q1", "what is albedo", "en"), Query("q2", "moss", "en"))
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    assert found.left_out == {"d3"}
    assert "skipped 1: corpus: field 'text' is blank" in caplog.text
    assert "skipped 1: qrels: document unknown" in caplog.text
    assert len(read_hub_set(HubSet(path, "train")).queries) == 1
    with pytest.raises(UserError, match="no split 'dev' in default; there are train, test"):
        read_hub_set(HubSet(path, "dev"))


def test_one_language_of_several(tmp_path):
    path = write_hub(
        tmp_path / "miracl",
        {
            "sw-corpus": {"dev": CORPUS[:2]},
            "sw-queries": {"dev": QUERIES},
            "sw-qrels": {"dev": QRELS[:3]},
            "sw-top_ranked": {"dev": [{"query-id": "q1", "corpus-ids": ["d2", "d1"]}]},
            "te-corpus": {"dev": CORPUS[1:2]},
        },
    )
    hub = HubSet(path, "dev", subset="sw", language="sw")
    assert read_hub_set(hub).name == f"hf:{path}:sw"
    assert {query.language for query in read_hub_set(hub).queries} == {"sw"}
    assert read_hub_candidates(hub) == {"q1": ("d2", "d1")}
    with pytest.raises(UserError, match=r"hf:.*miracl:te: the data set could not be loaded"):
        read_hub_set(HubSet(path, "dev", subset="te"))


def test_integer_ids_and_an_id_column_without_underscore(tmp_path):
    path = write_hub(
        tmp_path / "ints",
        {
            "corpus": {"train": [{"id": 7, "text": "a"}]},
            "queries": {"train": [{"id": 1, "text": "b"}]},
            "qrels": {"test": [{"query-id": 1, "corpus-id": 7, "score": 1.0}]},
        },
    )
    assert read_hub_set(HubSet(path)).qrels == {"1": {"7": 1}}


def test_judgements_that_are_none(tmp_path):
    configs = {
        "corpus": {"test": CORPUS[:2]},
        "queries": {"test": QUERIES},
        "default": {"test": [{"query": "q1", "doc": "d1"}]},
    }
    with pytest.raises(UserError, match="give it query-id, corpus-id and an integer score"):
        read_hub_set(HubSet(write_hub(tmp_path / "a", configs)))
    configs["default"]["test"] = QRELS[1:2]
    with pytest.raises(UserError, match="no query has a relevant document in the split 'test'"):
        read_hub_set(HubSet(write_hub(tmp_path / "b", configs)))


def belebele(language: str) -> dict[str, list[dict[str, Any]]]:
    rows = [("link1", "one", "first?"), ("link1", "one", "second?"), ("link2", "two", "third?")]
    if language == "deu_Latn":  # a question that two passages share
        rows[2] = ("link2", "two", "first?")
    return {
        "test": [
            {"link": link, "question_number": 1, "flores_passage": f"{text} {language}", "question": question}
            for link, text, question in rows
        ]
    }


def test_belebele_pairs_all_languages(tmp_path):
    languages = ("deu_Latn", "eng_Latn")
    path = write_hub(tmp_path / "belebele", {language: belebele(language) for language in languages})
    found = read_belebele(path, languages)
    assert [(d.id, d.text, d.language) for d in found.corpus] == [
        ("deu_Latn/link1", "one deu_Latn", "deu_Latn"),
        ("deu_Latn/link2", "two deu_Latn", "deu_Latn"),
        ("eng_Latn/link1", "one eng_Latn", "eng_Latn"),
        ("eng_Latn/link2", "two eng_Latn", "eng_Latn"),
    ]
    assert found.qrels["eng_Latn/second?"] == {"deu_Latn/link1": 1, "eng_Latn/link1": 1}
    assert found.qrels["eng_Latn/third?"] == {"deu_Latn/link2": 1, "eng_Latn/link2": 1}
    assert found.qrels["deu_Latn/first?"].keys() == {d.id for d in found.corpus}
    assert len(found.queries) == 2 + 3
    with pytest.raises(UserError, match=r"hf:.*belebele:fra_Latn: the data set could not be loaded"):
        read_belebele(path, ("fra_Latn",))
