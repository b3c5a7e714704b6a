"""Counts over all rows, and the sample."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.source_options import SourceOptions
from lit_retrofit.errors import UserError
from lit_retrofit.inspection.reading import Group, Tally, read_source


def record(query: str, positive: str, *negatives: str, language: str | None = None, other: str | None = None):
    documents = [Document(f"id {text}", text) for text in negatives]
    return Record("r", query, (Document(f"id {positive}", positive, other),), tuple(documents), language)


def test_counts() -> None:
    tally = Tally()
    for one in [
        record("q", "page", "no", language="de", other="en"),
        record("q", "page", "page", language="de", other="de"),
        record("q", "another"),
        record("words", "has the Words in it", "no", "no too"),
    ]:
        tally.add(one)
    assert (tally.records, tally.positives, tally.negatives, tally.without_negatives) == (4, 4, 4, 1)
    assert (tally.repeated_queries, tally.repeated_pairs, tally.crossing) == (2, 1, 1)
    assert tally.distinct_documents == len({"page", "no", "another", "has the Words in it", "no too"})
    assert tally.identical == 1
    assert tally.languages == {"de": 2, "unknown": 2}


@pytest.mark.parametrize(
    ("query", "text", "copied"),
    [
        ("a", "a page", False),
        ("words", "has the Words in it", False),
        ("page has four words", "the page has four words in it", False),
        ("The PAGE\u200b, has five words", "Here: the page has five words in it", True),
        ("the page has five words", "the page has words, five of them", False),
        ("選択したセル", "選択したセル範囲から", True),
    ],
)
def test_copied_is_what_clean_drops(query: str, text: str, copied: bool) -> None:
    tally, one = Tally(), record(query, "another")
    tally.add(replace(one, positives=(*one.positives, Document("2", text))))
    assert tally.copied == copied


def test_every_record_is_as_likely_in_the_sample() -> None:
    drawn: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        group = Group("g")
        for i in range(10):
            group.add(record(str(i), "p"), 3, rng)
        assert len({one.query for one in group.sample}) == 3
        drawn.update(one.query for one in group.sample)
    # 600 are expected of each, with a standard deviation of 20
    assert min(drawn.values()) > 500 and max(drawn.values()) < 700


def read(path: Path | str, limit: int = 0, scan: int = 0, **settings):
    with Progress(disable=True) as progress:
        return read_source(
            SourceOptions(str(path), **settings),
            limit=limit,
            scan=scan,
            seed=0,
            format=None,
            progress=progress,
        )


def test_groups_limits_and_broken_rows(tmp_path) -> None:
    rows = [{"query": f"q{i}", "positive": "p", "source": "ab"[i % 2]} for i in range(20)]
    rows += [{"query": " ", "positive": "p"}, {"query": "q", "positive": None}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(path, limit=4)
    assert [(g.name, g.tally.records, len(g.sample)) for g in found.groups] == [
        (f"{path}/a", 10, 4),
        (f"{path}/b", 10, 4),
    ]
    assert found.complete and found.format == "pairs"
    assert found.skipped == {"field 'query' is blank": 1, "field 'positive' is null": 1}
    assert found.examples[0].startswith(f"{path}:21: field 'query'")
    part = read(path, scan=7)
    assert not part.complete and sum(g.tally.records for g in part.groups) == 7
    assert read(path, scan=20).complete  # two more rows, and none of them a record


def test_broken_lines_are_counted_with_their_place(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"query": "q"\n{"query": "q", "positive": "p"}\n[1]\n{"query": "\xff"}\n')
    found = read(path)
    assert found.skipped == {"not a JSON object": 2, "not UTF-8": 1}
    assert found.examples[0] == f"{path}:1: not a JSON object"
    assert sum(group.tally.records for group in found.groups) == 1


def test_many_values_of_source_are_folded(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"query": f"q{i}", "positive": "p", "source": f"s{i}"} for i in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = read(path).groups
    assert len(groups) == 21
    assert groups[0].name.endswith("/others") and groups[0].tally.records == 30


def test_files_of_a_pattern_and_languages(tmp_path, monkeypatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("de", "en"):
        pq.write_table(pa.table({"query": [name], "positive": ["p"]}), tmp_path / f"{name}.parquet")
    found = read(tmp_path / "*.parquet", stream=True)
    assert found.groups[0].tally.records == 2
    found = read(str(tmp_path / "{language}.parquet"), languages={"de": "de", "en": "en"})
    assert found.groups[0].tally.languages == {"de": 1, "en": 1}


def test_no_valid_record(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "", "positive": "p"}\n')
    with pytest.raises(UserError, match=r"no usable record; every row was skipped: field 'query' is blank"):
        read(path)
