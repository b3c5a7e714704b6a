"""The folder beside the output: one run's alone, gone with it, kept for the next one where it was stopped."""

from __future__ import annotations

import json

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.mining.mine import mine
from lit_retrofit.mining.own_cache import own_cache


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"query": f"page {i} word {i % 9}", "positive": f"the page {i} of word {i % 9}"} for i in range(20)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_second_run_for_the_same_output_is_refused_and_takes_nothing_away(pairs, tmp_path):
    output = tmp_path / "mined.jsonl"
    with own_cache(output) as folder:
        (folder / "kept").mkdir()
        with pytest.raises(UserError, match=r"mined\.jsonl: another process is mining for it") as caught:
            mine("bm25", data=str(pairs), output=output)
        assert "\n" not in str(caught.value) and (folder / "kept").is_dir()
        mine("bm25", data=str(pairs), output=tmp_path / "other.jsonl")  # another output has its own folder
        (folder / "kept").rmdir()
    mine("bm25", data=str(pairs), output=output)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_what_a_stopped_run_kept_stays_for_the_next_and_an_empty_folder_does_not(tmp_path):
    output = tmp_path / "mined.jsonl"
    for kept in (True, False):
        with pytest.raises(KeyboardInterrupt), own_cache(output) as folder:
            if kept:
                (folder / "key").mkdir()
                (folder / "key" / "key.json").touch()
            raise KeyboardInterrupt
        assert [path.name for path in tmp_path.rglob("*.json")] == (["key.json"] if kept else [])
        with own_cache(output) as folder:
            assert (folder / "key" / "key.json").exists() is kept
        assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_told(pairs):
    with pytest.raises(UserError, match="no embeddings can be kept here"), own_cache(pairs / "mined.jsonl"):
        pass
