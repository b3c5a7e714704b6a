"""Records from every convention, and the one line that a bad row earns."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_retrofit.data.formats import FORMATS, read_records, record_to_row, stream_records, write_records
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Document, Record, is_made_up, text_id
from lit_retrofit.data.rows import _READERS
from lit_retrofit.errors import UserError


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one_record(tmp_path: Path, row: dict, **options: Any) -> Record:
    records, _ = read_records(jsonl(tmp_path / "a.jsonl", row), **options)
    assert len(records) == 1
    return records[0]


def fault(source: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_records(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def texts(documents: tuple[Document, ...]) -> list[str]:
    return [document.text for document in documents]


def unnamed(*values: str) -> tuple[Document, ...]:
    return tuple(Document(text_id(value), value) for value in values)


# the conventions


def test_pairs_with_every_field(tmp_path: Path) -> None:
    row = {
        "query": "q",
        "positive": "p",
        "negative": "n0",
        "negative_2": "n2",
        "negative_10": "n10",
        "negative_1": "n1",
        "negatives": ["n11", "n12"],
        "negative_ids": [7, "d1", "d2", "d10", "d11", "d12"],
        "negative_scores": [0.6, 0.5, 0.4, 0.3, 0.2, 1],
        "positive_scores": [0.9],
        "language": "de",
        "task": "title",
        "source": "manual",
        "document_id": 12,
        "query_id": 3,
        "parallel_id": "page",
        "anything": {"else": 1},
    }
    assert one_record(tmp_path, row) == Record(
        id="3",
        query="q",
        positives=(Document("12", "p", "de"),),
        negatives=(
            Document("7", "n0"),
            Document("d1", "n1"),
            Document("d2", "n2"),
            Document("d10", "n10"),
            Document("d11", "n11"),
            Document("d12", "n12"),
        ),
        language="de",
        task="title",
        source="manual",
        group="page",
        positive_scores=(0.9,),
        negative_scores=(0.6, 0.5, 0.4, 0.3, 0.2, 1.0),
    )


def test_pairs_without_optional_fields(tmp_path: Path) -> None:
    row = {"query": "q", "positive": "p", "language": "", "task": None, "negative": None, "negatives": []}
    assert one_record(tmp_path, row) == Record("a.jsonl:1", "q", unnamed("p"))


def test_group_goes_before_parallel_id(tmp_path: Path) -> None:
    row = {"query": "q", "positive": "p", "parallel_id": "page 1", "group": "pages 1 and 2"}
    assert one_record(tmp_path, row).group == "pages 1 and 2"


def test_list_in_negative(tmp_path: Path) -> None:
    row = {"query": "q", "positive": "p", "negative": ["n1", "n2"]}
    assert one_record(tmp_path, row).negatives == unnamed("n1", "n2")


def test_triplets_go_by_name_and_not_by_order(tmp_path: Path) -> None:
    row = {"negative": "n", "positive": "p", "anchor": "q"}
    _, report = read_records(jsonl(tmp_path / "a.jsonl", row))
    assert report.format == "triplets"
    assert one_record(tmp_path, row) == Record("a.jsonl:1", "q", unnamed("p"), unnamed("n"))


def test_ragged_csv_negatives(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,positive,negative_1,negative_2,negative_3,negatives\nq,p,n1,,n3,\nr,s,,,,\n")
    records, report = read_records(path)
    assert [texts(record.negatives) for record in records] == [["n1", "n3"], []]
    assert [record.id for record in records] == ["a.csv:2", "a.csv:3"]
    assert (report.format, report.records, report.skipped_total) == ("pairs", 2, 0)


def test_flagembedding(tmp_path: Path) -> None:
    row = {
        "query": "q",
        "pos": ["p1", "p2"],
        "neg": ["n"],
        "pos_scores": [2, 1.5],
        "neg_scores": [-3],
        "pos_id": [1, 2],
        "prompt": "",
        "type": "normal",
    }
    assert one_record(tmp_path, row) == Record(
        "a.jsonl:1",
        "q",
        (Document("1", "p1"), Document("2", "p2")),
        unnamed("n"),
        task="normal",
        positive_scores=(2.0, 1.5),
        negative_scores=(-3.0,),
    )


def test_tevatron_passages(tmp_path: Path) -> None:
    row = {
        "query_id": "1",
        "query": "q",
        "positive_passages": [{"docid": 5, "title": "Title", "text": "text"}],
        "negative_passages": [{"docid": "6", "title": "", "text": "no title"}, {"text": "no id"}],
    }
    assert one_record(tmp_path, row) == Record(
        "1",
        "q",
        (Document("5", "Title text"),),
        (Document("6", "no title"), *unnamed("no id")),
    )


def test_tevatron_ids_with_a_corpus(tmp_path: Path) -> None:
    corpus = jsonl(
        tmp_path / "corpus.jsonl",
        {"docid": 5, "title": "Title", "text": "text"},
        {"docid": "6", "text": "other"},
    )
    row = {
        "query_id": 1,
        "query_text": "q",
        "positive_document_ids": ["5"],
        "negative_document_ids": [6],
    }
    expected = Record("1", "q", (Document("5", "Title text"),), (Document("6", "other"),))
    assert one_record(tmp_path, row, corpus=corpus) == expected

    path = jsonl(tmp_path / "a.jsonl", row)
    assert "field 'positive_document_ids' names documents of a corpus file that was not given" in fault(path)
    lacking = jsonl(tmp_path / "a.jsonl", {**row, "negative_document_ids": ["9"]})
    message = fault(lacking, corpus=corpus)
    assert "a.jsonl:1: field 'negative_document_ids[0]' names a document that the corpus lacks" in message
    assert "'9'" in message
    jsonl(corpus, {"docid": 5, "text": "x"}, {"docid": "5", "text": "y"})
    assert "corpus.jsonl:2: field 'docid' repeats '5' of line 1" in fault(path, corpus=corpus)


def test_corpus_is_not_ignored_silently(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"query": "q", "positive": "p"})
    assert "corpus" in fault(path, corpus=path)


def test_parquet_and_jsonl_give_the_same_records(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "positive": f"p{i}", "negative": [f"n{i}"], "query_id": i} for i in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet")[0] == read_records(jsonl(tmp_path / "a.jsonl", *rows))[0]


# the product's own format

FULL = Record(
    id="q1",
    query="Grüße\u2028 🦊",
    positives=(Document("a", "text a", "de"), Document("b", "text b", None)),
    negatives=(Document("c", "text c", "ja"),),
    language="de",
    task="title",
    source="s",
    group="g",
    positive_scores=(0.1 + 0.2, 1e-12),
    negative_scores=(-0.5,),
)


def test_retrofit_format_loses_nothing(tmp_path: Path) -> None:
    records = [FULL, Record("x", "q", unnamed("p"))]
    assert write_records(iter(records), tmp_path / "new" / "a.jsonl") == 2
    again, report = read_records(tmp_path / "new" / "a.jsonl")
    assert again == records
    assert report.format == "retrofit"
    assert FORMATS["retrofit"].convert(record_to_row(FULL), None) == FULL  # type: ignore[arg-type]


def test_provenance_is_an_object_or_its_json_text(tmp_path: Path) -> None:
    row = {"query": "q", "positives": [{"text": "p"}]}
    for given in ({"b": 1, "a": 2}, '{"b": 1, "a": 2}'):
        assert one_record(tmp_path, row | {"provenance": given}).provenance == '{"a": 2, "b": 1}'
    for wrong in ("by hand", "[1]", "", 3, "[" * 100_000):
        message = fault(jsonl(tmp_path / "a.jsonl", row | {"provenance": wrong}))
        assert "a.jsonl:1: field 'provenance' is no object" in message


def test_equal_documents_are_held_once(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "positive": f"p{i}", "negative": "the same"} for i in range(2)]
    first, second = read_records(jsonl(tmp_path / "a.jsonl", *rows))[0]
    assert first.negatives[0] is second.negatives[0]


def test_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("precious")
    with pytest.raises(UserError, match="--overwrite"):
        write_records([FULL], path)
    assert path.read_text() == "precious"
    write_records([FULL], path, overwrite=True)
    assert read_records(path)[0] == [FULL]
    with pytest.raises(UserError, match=r"ending in \.jsonl"):
        write_records([FULL], tmp_path / "a.parquet")


def test_interrupted_writing_leaves_the_old_file(tmp_path: Path) -> None:
    def breaks() -> Iterator[Record]:
        yield FULL
        raise KeyboardInterrupt

    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_records(breaks(), path, overwrite=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_records([FULL], tmp_path / "file" / "a.jsonl")


# telling formats apart


@pytest.mark.parametrize(
    "extra", [{"anchor": "a"}, {"pos": ["p"]}, {"positives": []}, {"positive_passages": []}]
)
def test_mixed_conventions_ask_for_the_format(tmp_path: Path, extra: dict) -> None:
    row = {"query": "q", "positive": "p", **extra}
    message = fault(jsonl(tmp_path / "a.jsonl", row))
    assert message.startswith(f"{tmp_path / 'a.jsonl'}:1: ")
    assert "mix several conventions" in message
    assert "pairs, triplets, flagembedding, tevatron, retrofit" in message
    assert one_record(tmp_path, row, format="pairs").query == "q"


def test_query_and_anchor_in_flagembedding_rows_are_a_mix_too(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"query": "q", "anchor": "a", "pos": ["p"]})
    assert "mix several conventions" in fault(path)


def test_explicit_format_decides(tmp_path: Path) -> None:
    row = {"query": "q", "anchor": "a", "positive": "p", "pos": ["x"]}
    assert one_record(tmp_path, row, format="triplets").query == "a"
    assert texts(one_record(tmp_path, row, format="flagembedding").positives) == ["x"]


def test_unknown_fields_and_unknown_format(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "q", "answer": "a"})
    message = fault(path)
    assert "a.jsonl:1: no known format has the fields question, answer" in message
    assert "say with `fields` which is which" in message and "docs/sources.md" in message
    assert "pairs: query + positive" in message
    assert "use one of pairs, triplets, flagembedding, tevatron, retrofit, beir" in fault(path, format="pair")
    assert "corpus.jsonl and qrels" in fault(path, format="beir")
    assert "split 'dev' cannot be used here" in fault(path, split="dev")


# bad rows

GOOD = {"query": "q", "positive": "p"}
BAD_ROWS = [
    ({"query": "q"}, "field 'positive' is missing"),
    ({"positive": "p"}, "field 'query' is missing"),
    ({"query": None, "positive": "p"}, "field 'query' is null"),
    ({"query": "q", "positive": None}, "field 'positive' is null"),
    ({"query": "q", "positive": ""}, "field 'positive' is blank"),
    ({"query": " \t\u200b\ufeff\u00a0", "positive": "p"}, "field 'query' is blank"),
    ({"query": "q", "positive": ["p"]}, "field 'positive' is a list where a string belongs"),
    ({"query": ["q"], "positive": "p"}, "field 'query' is a list where a string belongs"),
    ({"query": 3, "positive": "p"}, "field 'query' is a number where a string belongs"),
    ({"query": True, "positive": "p"}, "field 'query' is a boolean where a string belongs"),
    ({"query": "\ud800", "positive": "p"}, "field 'query' holds half a surrogate pair"),
    ({**GOOD, "negative": "  "}, "field 'negative' is blank"),
    ({**GOOD, "negative_2": 5}, "field 'negative_2' is a number where a string belongs"),
    ({**GOOD, "negatives": "n"}, "field 'negatives' is a string where a list belongs"),
    ({**GOOD, "negatives": ["n", None]}, "field 'negatives[1]' is null"),
    ({**GOOD, "negatives": ["n"], "negative_scores": [1, 2]}, "field 'negative_scores' has the wrong length"),
    ({**GOOD, "negatives": ["n"], "negative_ids": ["1", "2"]}, "field 'negative_ids' has the wrong length"),
    ({**GOOD, "positive_scores": [float("nan")]}, "field 'positive_scores[0]' is no finite number"),
    ({**GOOD, "positive_scores": [10**400]}, "field 'positive_scores[0]' is no finite number"),
    ({**GOOD, "positive_scores": ["1"]}, "field 'positive_scores[0]' is no finite number"),
    ({**GOOD, "document_id": 1.5}, "field 'document_id' is a number where an id belongs"),
    ({**GOOD, "language": ["de"]}, "field 'language' is a list where a string belongs"),
]


@pytest.mark.parametrize(("row", "says"), BAD_ROWS, ids=[says for _, says in BAD_ROWS])
def test_bad_row_stops_or_is_counted(tmp_path: Path, row: dict, says: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD, row, GOOD, row)
    assert fault(path).startswith(f"{path}:2: {says}; ")
    records, report = read_records(path, skip_invalid=True)
    assert [record.id for record in records] == ["a.jsonl:1", "a.jsonl:3"]
    reason = says.replace("[0]", "").replace("[1]", "")
    assert report.skipped == ((2, reason), (4, reason))
    assert report.skipped_counts == {reason: 2}
    assert f"skipped 2: {reason}" in str(report)


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ({"query": "q", "pos": ["p"]}, {"query": "q", "pos": []}, "field 'pos' is empty"),
        ({"query": "q", "pos": ["p"]}, {"query": "q", "neg": ["n"]}, "field 'pos' is missing"),
        ({"query": "q", "pos": ["p"]}, {"query": "q", "pos": "p"}, "field 'pos' is a string where a list"),
        ({"query": "q", "pos": ["p"]}, {"query": "q", "pos": ["p"], "pos_scores": [1, 2]}, "wrong length"),
        (
            {"query": "q", "positive_passages": [{"text": "p"}]},
            {"query": "q", "positive_passages": [{"docid": "1"}]},
            "field 'positive_passages[0].text' is missing",
        ),
        (
            {"query": "q", "positive_passages": [{"text": "p"}]},
            {"query": "q", "positive_passages": ["p"]},
            "field 'positive_passages[0]' is no object",
        ),
        (
            {"query": "q", "positives": [{"text": "p"}]},
            {"query": "q", "positives": None},
            "'positives' is null",
        ),
    ],
)
def test_bad_rows_of_other_formats(tmp_path: Path, good: dict, bad: dict, says: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", good, bad)
    message = fault(path)
    assert message.startswith(f"{path}:2: ")
    assert says in message
    assert read_records(path, skip_invalid=True)[1].skipped_total == 1


def test_negative_equal_to_a_positive_is_dropped_and_counted(tmp_path: Path) -> None:
    row = {
        "query": "q",
        "pos": ["p1", "p2"],
        "pos_id": ["a", "b"],
        "neg": ["n", "p2", "other words"],
        "neg_id": ["c", "d", "a"],
        "neg_scores": [0.1, 0.2, 0.3],
    }
    records, report = read_records(jsonl(tmp_path / "a.jsonl", row))
    assert records[0].negatives == (Document("c", "n"),)
    assert records[0].negative_scores == (0.1,)
    assert report.dropped_negatives == 2
    assert "dropped 2 negatives" in str(report)


def test_one_id_for_two_texts_names_both_lines(tmp_path: Path) -> None:
    rows = (
        {"query": "q", "positive": "p", "document_id": 1},
        {"query": "r", "positive": "s", "negatives": ["t"], "negative_ids": ["1"]},
    )
    path = jsonl(tmp_path / "a.jsonl", *rows)
    message = f"{path}:2: document id '1' has another text on line 1"
    assert fault(path).startswith(message)
    assert fault(path, skip_invalid=True).startswith(message)


def test_skipped_rows_are_all_counted_but_few_are_shown(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", GOOD, *[{"query": "q"}] * 50, *[{**GOOD, "query": ""}] * 3)
    _, report = read_records(path, skip_invalid=True)
    assert report.skipped_counts == {"field 'positive' is missing": 50, "field 'query' is blank": 3}
    assert [line for line, _ in report.skipped] == list(range(2, 22))
    assert (report.path, report.records) == (str(path), 1)


def test_a_file_of_bad_rows_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {**GOOD, "query": " "})
    assert "no usable record; every row was skipped: field 'query' is blank (1)" in fault(
        path, skip_invalid=True
    )


# folders in BEIR layout


def beir_folder(folder: Path, *splits: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl", *[{"_id": f"d{i}", "title": "T", "text": f"t{i}"} for i in range(3)])
    jsonl(folder / "queries.jsonl", {"_id": 1, "text": "q", "metadata": {"language": "de"}})
    for split in splits:
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n1\td2\t1\n1\td0\t0\n1\td1\t2\n"
        )
    return folder


@pytest.mark.parametrize("splits", [("train", "test", "dev"), ("dev",)])
def test_folder_gives_relevant_documents_as_positives(tmp_path: Path, splits: tuple[str, ...]) -> None:
    records, report = read_records(beir_folder(tmp_path / "set", *splits))
    positives = (Document("d2", "T t2"), Document("d1", "T t1"))
    assert records == [Record("1", "q", positives, language="de")]
    assert (report.format, report.records) == ("beir", 1)


def test_folder_with_several_splits_and_no_train(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "set", "dev", "test")
    message = fault(folder)
    assert "there: dev, test" in message
    assert len(read_records(folder, split="dev")[0]) == 1
    assert "no split 'x'" in fault(folder, split="x")
    assert "cannot be read as format 'pairs'" in fault(folder, format="pairs")
    assert "corpus.jsonl: missing" in fault(tmp_path)
    assert "brings its own corpus" in fault(folder, corpus=folder / "corpus.jsonl")


def test_a_stream_gives_the_records_that_reading_gives(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"query": f"q{i}", "positive": f"d{i}", "negatives": [f"d{i}"]} for i in range(3)]
    file.write_text("\n".join(map(json.dumps, rows)) + '\n\n{"query": "", "positive": "x"}\nnonsense\n')
    with pytest.raises(UserError, match=":5: field 'query' is blank"):
        list(stream_records(file, Skips(False), skip_broken=True)[1])
    skips = Skips(True)
    streamed = list(stream_records(file, skips, skip_broken=True)[1])
    assert [line for line, _ in streamed] == [1, 2, 3]
    assert [record.query for _, record in streamed] == ["q0", "q1", "q2"]
    assert streamed[0][1].negatives[0].text == "d0"  # left to who writes
    assert skips.counts == {"field 'query' is blank": 1, "not a JSON object": 1}


def test_a_stream_does_not_read_ahead(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "q", "positive": "d"}\n' * 3 + "nonsense\n")
    _, stream = stream_records(file, Skips(False))
    assert next(stream)[0] == 1
    with pytest.raises(UserError, match=":4: not valid JSON"):
        list(stream)


def test_ids_that_reading_makes_up_are_told_from_given_ones(tmp_path: Path) -> None:
    """Of every type of file, named in either case, and still where a file that was written then is read."""
    row = {"query": "q", "positive": "p"}
    for suffix in _READERS:
        for name in (f"a{suffix}", f"A{suffix}".upper()):
            path = tmp_path / name
            if suffix == ".parquet":
                pq.write_table(pa.table({key: [value] for key, value in row.items()}), path)
            else:
                separator = {".csv": ",", ".tsv": "\t"}.get(suffix)
                lines = (
                    [separator.join(row), separator.join(row.values())] if separator else [json.dumps(row)]
                )
                content = "\n".join(lines).encode()
                path.write_bytes(content)
                packed = path.with_name(name + ".gz")
                packed.write_bytes(gzip.compress(content))
            for place in (path, *([] if suffix == ".parquet" else [packed])):
                records, _ = read_records(place)
                write_records(records, tmp_path / "again.jsonl", overwrite=True)
                for record in (*records, *read_records(tmp_path / "again.jsonl")[0]):
                    assert is_made_up(record.id) and is_made_up(record.positives[0].id), place
    for given in ("q7", "doc:12", "msmarco_v2:3", "a.jsonl", "text:one", "manual.html:4", "x:hf:a:1", "7"):
        assert not is_made_up(given)
