"""Evaluation folders: what is read, and the one line that each fault earns."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lit_retrofit.data.beir import read_beir, write_beir
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError

HEADER = "query-id\tcorpus-id\tscore\n"


def jsonl(path: Path, *rows: dict) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two queries and three documents, with every way to write a language and a title."""
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    jsonl(
        folder / "corpus.jsonl",
        {"_id": "007", "title": "Title", "text": "text", "metadata": {"language": "de"}},
        {"_id": 8, "title": "", "text": "eight", "language": "en"},
        {"_id": "d c", "text": "spaced id", "metadata": {}},
    )
    jsonl(
        folder / "queries.jsonl",
        {"_id": "1", "text": "one", "metadata": {"language": "de", "task": "title"}},
        {"_id": 2, "text": "two", "metadata": None},
    )
    (folder / "qrels" / "test.tsv").write_text(HEADER + "1\t007\t2\n1\t8\t0\n2\td c\t1\n")
    return folder


EXPECTED = RetrievalSet(
    name="tiny",
    queries=(Query("1", "one", "de"), Query("2", "two")),
    corpus=(Document("007", "Title text", "de"), Document("8", "eight", "en"), Document("d c", "spaced id")),
    qrels={"1": {"007": 2, "8": 0}, "2": {"d c": 1}},
)


def fault(folder: Path, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        read_beir(folder, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message.removeprefix(f"{folder}/")


def test_reads_ids_titles_languages_and_grades(folder: Path) -> None:
    assert read_beir(folder) == EXPECTED
    assert read_beir(folder, name="other").name == "other"


def test_trec_qrels(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("1 0 007 2\n1 0 8 0\n2 0 8 1\n")
    assert read_beir(folder).qrels == {"1": {"007": 2, "8": 0}, "2": {"8": 1}}
    (folder / "qrels" / "test.tsv").write_text("1\t0\t007\t2\r\n2\t0\td c\t1\r\n")
    assert read_beir(folder).qrels == {"1": {"007": 2}, "2": {"d c": 1}}


def test_split(folder: Path) -> None:
    qrels = folder / "qrels"
    (qrels / "dev.tsv").write_text(HEADER + "1\t8\t1\n2\t8\t1\n")
    assert read_beir(folder).qrels == EXPECTED.qrels  # test, where there is one
    assert read_beir(folder, split="dev").qrels["1"] == {"8": 1}
    assert "no split 'x'; there: dev, test" in fault(folder, split="x")
    (qrels / "test.tsv").unlink()
    assert read_beir(folder).qrels["1"] == {"8": 1}  # the only one
    (qrels / "train.tsv").write_text(HEADER + "1\t8\t1\n2\t8\t1\n")
    assert "no split 'test' and not a single other one; there: dev, train" in fault(folder)


def test_queries_of_another_split_are_left_to_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "qrels" / "test.tsv").write_text(HEADER + "1\t007\t1\n")
    (folder / "qrels" / "train.tsv").write_text(HEADER + "2\t8\t1\n")
    assert [query.id for query in read_beir(folder).queries] == ["1"]
    assert [query.id for query in read_beir(folder, split="train").queries] == ["2"]
    assert not caplog.records


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl"])
def test_missing_file(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    assert fault(folder).startswith(f"{missing}: missing;")


def test_missing_qrels(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").unlink()
    assert "there: no .tsv file" in fault(folder)
    (folder / "qrels").rmdir()
    assert fault(folder).startswith("qrels: missing;")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1\t007\t2\n2\t8\t1\n", "qrels/test.tsv:1: no header"),
        ("corpus-id\tquery-id\tscore\n007\t1\t1\n", "qrels/test.tsv:1: no header"),
        ("query-id\tcorpus-id\n1\t007\n", "qrels/test.tsv:1: no header"),
        (HEADER + "1\t007\t0.5\n", "qrels/test.tsv:2: field 'score' is '0.5'"),
        (HEADER + "1\t007\t1\n2\t8\t\n", "qrels/test.tsv:3: field 'score' is ''"),
        (HEADER + "1\t007\n", "qrels/test.tsv:2: 2 columns where the first line has 3"),
        (HEADER + "1\t007\t1\n1\t007\t2\n", "qrels/test.tsv:3: query '1' and document '007' are judged 2"),
        (
            HEADER + "1\t007\t1\n1\tx\t1\n2\ty\t1\n",
            "qrels/test.tsv:3: document 'x' is not in corpus.jsonl (judgements of unknown ids: 2)",
        ),
        (HEADER + "01\t007\t1\n", "qrels/test.tsv:2: query '01' is not in queries.jsonl"),
        (
            HEADER + "1\t007\t1\n2\t8\t0\n",
            "queries.jsonl:2: query '2' has no positive judgement in test.tsv (such queries: 1)",
        ),
        (HEADER + "1\t007\t1\n", "queries.jsonl:2: query '2' has no positive judgement"),
        (HEADER + "1\t007\t-1\n", "queries.jsonl:1: query '1' has no positive judgement"),
        (HEADER, "qrels/test.tsv: the file has no judgements"),
        ("", "qrels/test.tsv: the file has no judgements"),
    ],
)
def test_bad_qrels(folder: Path, text: str, says: str) -> None:
    (folder / "qrels" / "test.tsv").write_text(text)
    assert fault(folder).startswith(says)


@pytest.mark.parametrize(
    ("file", "row", "says"),
    [
        ("corpus.jsonl", {"_id": "8", "text": "t"}, "field '_id' repeats '8' of line 2"),
        ("corpus.jsonl", {"_id": 7, "title": " ", "text": "\u200b"}, "field 'text' is blank"),
        ("corpus.jsonl", {"_id": 7, "text": None}, "field 'text' is null"),
        ("corpus.jsonl", {"_id": 7, "title": "T"}, "field 'text' is missing"),
        ("corpus.jsonl", {"_id": 7, "title": ["T"], "text": "t"}, "field 'title' is no string"),
        ("corpus.jsonl", {"id": 7, "text": "t"}, "field '_id' is missing"),
        ("queries.jsonl", {"_id": "1", "text": "t"}, "field '_id' repeats '1' of line 1"),
        ("queries.jsonl", {"_id": 9, "text": ""}, "field 'text' is blank"),
        ("queries.jsonl", {"_id": None, "text": "t"}, "field '_id' is null where an id belongs"),
        ("queries.jsonl", {"_id": 9, "text": "t", "language": 5}, "field 'language' is a number"),
    ],
)
def test_bad_rows(folder: Path, file: str, row: dict, says: str) -> None:
    path = folder / file
    line = len(path.read_text().splitlines()) + 1
    with path.open("a") as opened:
        opened.write(json.dumps(row) + "\n")
    assert fault(folder).startswith(f"{file}:{line}: {says}")


def test_skip_invalid_counts_what_it_leaves_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (folder / "corpus.jsonl").open("a") as opened:
        opened.write('{"_id": "blank", "text": " "}\n')
    (folder / "qrels" / "test.tsv").write_text(HEADER + "1\t007\t1\n1\tblank\t1\n1\tx\t1\n2\t8\t0\n")
    with caplog.at_level(logging.WARNING):
        found = read_beir(folder, skip_invalid=True)
    assert found.queries == EXPECTED.queries[:1]
    assert found.corpus == EXPECTED.corpus
    assert found.qrels == {"1": {"007": 1}}
    assert found.left_out == {"blank"}
    assert [record.getMessage().removeprefix(f"{folder}: ") for record in caplog.records] == [
        "skipped 1: corpus.jsonl: field 'text' is blank",
        "skipped 2: test.tsv: document not in corpus.jsonl",
        "skipped 1: queries.jsonl: no positive judgement",
    ]


def test_nothing_left(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text(HEADER + "1\t007\t0\n")
    with pytest.raises(UserError, match="no query with a positive judgement is left"):
        read_beir(folder, skip_invalid=True)


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copies" / "tiny"
    write_beir(EXPECTED, copy)
    assert read_beir(copy) == EXPECTED
    with pytest.raises(UserError, match="--overwrite"):
        write_beir(EXPECTED, copy)
    smaller = RetrievalSet("tiny", EXPECTED.queries[:1], EXPECTED.corpus, {"1": {"8": 1}})
    write_beir(smaller, copy, split="dev", overwrite=True)
    assert read_beir(copy) == smaller
    assert [path.name for path in (copy / "qrels").iterdir()] == ["dev.tsv"]


def test_id_that_would_break_the_columns(tmp_path: Path) -> None:
    broken = RetrievalSet("x", (Query("a\tb", "q"),), (Document("d", "t"),), {"a\tb": {"d": 1}})
    with pytest.raises(UserError, match="tab or a line break"):
        write_beir(broken, tmp_path / "x")
    assert not (tmp_path / "x").exists()
