"""Hub data sets: a local folder that load_dataset reads, and what can go wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Document, is_made_up
from lit_retrofit.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of two splits, and a cache of its own; the working folder holds it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local" / "dir").mkdir(parents=True)
    for split, count in (("train", 3), ("test", 1)):
        rows = [{"query": f"{split} {i}", "positive": "p", "document_id": 4} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "local" / "dir" / f"{split}.jsonl").write_text(text)
    return tmp_path / "local" / "dir"


def fault(source: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_records(source, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(source)
    return str(caught.value)


def test_local_folder_and_splits(folder: Path) -> None:
    records, report = read_records("hf:./local/dir")
    assert [record.query for record in records] == ["train 0", "train 1", "train 2"]
    assert records[1].positives == (Document("4", "p"),)
    assert records[1].id == "hf:./local/dir:2" and is_made_up(records[1].id)
    assert (report.path, report.format, report.records) == ("hf:./local/dir", "pairs", 3)
    assert [record.query for record in read_records("hf:./local/dir@test")[0]] == ["test 0"]
    assert [record.query for record in read_records("hf:./local/dir:default@test")[0]] == ["test 0"]
    assert len(read_records("hf:./local/dir@train[:2]")[0]) == 2


def test_bad_row_names_the_data_set_and_row(folder: Path) -> None:
    rows = [{"query": "q", "positive": "p"}, {"query": "q", "positive": " "}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").unlink()
    assert fault("hf:./local/dir").startswith("hf:./local/dir:2: field 'positive' is blank")


def test_unknown_split_configuration_and_folder(folder: Path) -> None:
    assert "dev" in fault("hf:./local/dir@dev")
    assert "other" in fault("hf:./local/dir:other")
    assert "could not be loaded" in fault("hf:./local/none")
    assert "write hf:org/name" in fault("hf:")
    assert "@split" in fault("hf:./local/dir", split="test")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach\nthe hub"),
        datasets.exceptions.DatasetNotFoundError("unknown"),
        RuntimeError("Dataset scripts are no longer supported"),
        TimeoutError(),
    ],
)
def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked = {}

    def refuse(*names: str, **options: Any) -> None:
        asked.update(options, names=names)
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    message = fault("hf:org/name:config@validation")
    assert "check the name" in message
    assert asked == {"names": ("org/name", "config"), "split": "validation", "revision": None}
