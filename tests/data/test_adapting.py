"""Columns and labels of a source's own, in memory and streamed; what is said where they do not fit."""

from __future__ import annotations

import json

import datasets
import pytest

from lit_retrofit.data.adapting import Adapter
from lit_retrofit.data.catalogue import resolve_source
from lit_retrofit.data.fields import BadRow
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.options import DataOptions, SamplingOptions, SourceOptions, check_options
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.sampling import draw
from lit_retrofit.data.sources import read_training_data
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.errors import UserError

FIELDS = {"query": "question", "positive": "answer.text", "group": "answer.page"}
ROW = {"question": "q", "answer": {"text": "p", "page": 7}, "negative": "n"}


def test_fields_are_renamed_and_the_rest_stays() -> None:
    adapter = Adapter(SourceOptions("x", fields=FIELDS))
    assert adapter.row(ROW) == {"query": "q", "positive": "p", "group": 7, "negative": "n"}
    assert sorted(adapter.columns(ROW, "x")) == ["group", "negative", "positive", "query"]
    lists = Adapter(SourceOptions("x", fields={"pos": "passages.text", "a.b": "c.d"}))
    assert lists.row({"passages": [{"text": "1"}, {"text": "2"}], "c.d": 0}) == {"pos": ["1", "2"], "a.b": 0}
    one_column_twice = Adapter(SourceOptions("x", fields={"query": "en", "group": "en", "positive": "de"}))
    assert one_column_twice.row({"en": "a", "de": "b"}) == {"query": "a", "group": "a", "positive": "b"}
    assert Adapter(SourceOptions("x", fields={"query": "a.b"})).row({"a": None}) == {"query": None}


@pytest.mark.parametrize(
    ("row", "message"),
    [({"frage": 1}, "the row has frage"), ({"question": "q", "answer": "p"}, "a value without fields")],
)
def test_a_missing_column_names_those_there(row, message) -> None:
    with pytest.raises(BadRow) as caught:
        Adapter(SourceOptions("x", fields=FIELDS)).row(row)
    assert message in caught.value.problem + caught.value.remedy


def test_labels_are_given_where_a_record_has_none() -> None:
    adapter = Adapter(SourceOptions("x", language="en", document_language="de", task="t"))
    documents = (Document("1", "p"), Document("2", "o", "fr"))
    record = adapter.record(Record("r", "q", documents, (Document("3", "n"),)))
    assert [d.language for d in (*record.positives, *record.negatives)] == ["de", "fr", "de"]
    assert (record.language, record.task) == ("en", "t")
    labelled = Record("r", "q", documents, language="ja", task="u")
    assert (adapter.record(labelled).language, adapter.record(labelled).task) == ("ja", "u")


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_files_in_memory_and_streamed_alike(tmp_path, write_parquet) -> None:
    source = SourceOptions(write(tmp_path / "a.jsonl", [ROW] * 3), fields=FIELDS, language="en", task="t")
    (_, records), *_ = read_training_data(DataOptions(train=(source,), validation_share=0)).sources
    assert (records[0].query, records[0].group, records[0].positives[0].language) == ("q", "7", "en")

    rows = [{**ROW, "question": f"q{i}", "lang": "de" if i % 2 else "en"} for i in range(8)]
    path = write_parquet(rows)
    fields = {**FIELDS, "language": "lang"}
    stream = TableStream(SourceOptions(path, stream=True, fields=fields, task="t", max_per_language=2))
    taken = [record for record, _ in stream.take((0,), 0, 4)]
    assert sorted(record.language for record in taken) == ["de", "de", "en", "en"]
    assert {record.task for record in taken} == {"t"} and stream.capped == {"de": 4, "en": 4}

    wrong = SourceOptions(path, stream=True, fields={"query": "frage"})
    with pytest.raises(UserError, match=r"no column 'frage', .* there are question, answer, negative, lang"):
        TableStream(wrong)
    with pytest.raises(UserError, match=r"a\.jsonl:1: no column 'frage', .*; there are question, answer"):
        read_records(source.path, adapter=Adapter(wrong))


def test_a_title_goes_before_its_text(tmp_path) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": "q", "positive": "text", "positive_title": "Title"}])
    assert read_records(path)[0][0].positives[0].text == "Title text"


def test_the_whole_split_of_a_hub_data_set_is_streamed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", [{"query": f"q{i}", "positive": "p"} for i in range(5)])
    stream = TableStream(SourceOptions(f"hf:{tmp_path}/set", stream=True))
    assert sorted(record.query for record, _ in stream.take((0,), 0, 5)) == [f"q{i}" for i in range(5)]
    with pytest.raises(UserError, match="a slice of a split cannot be streamed"):
        TableStream(SourceOptions(f"hf:{tmp_path}/set@train[:2]", stream=True))


def test_a_gated_data_set(monkeypatch) -> None:
    def refuse(*names, **options):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"hf:a/b:c: the data set is gated; accept its terms at https://hugg"):
        read_records("hf:a/b:c")


def hub_beir(monkeypatch, qrels, splits=("corpus",)):
    tables = {
        "default": datasets.Dataset.from_list(qrels),
        "queries": datasets.DatasetDict(queries=datasets.Dataset.from_list([{"_id": "1", "text": "q"}])),
        "corpus": datasets.DatasetDict(
            {name: datasets.Dataset.from_list([{"_id": "d", "title": "", "text": "p"}]) for name in splits}
        ),
    }
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config, split=None, revision=None: tables[config]
    )
    return "hf:a/b@train"


def test_beir_on_the_hub(monkeypatch) -> None:
    good = {"query-id": "1", "corpus-id": "d", "score": 1.0}
    zero, unknown = {**good, "corpus-id": "e", "score": 0.0}, {**good, "corpus-id": "e"}
    records, report = read_records(hub_beir(monkeypatch, [zero, good]), format="beir")
    assert records == [Record("1", "q", (Document("d", "p"),))] and report.format == "beir"
    source = hub_beir(monkeypatch, [good, unknown])
    with pytest.raises(UserError, match=r"hf:a/b@train:1: field 'corpus-id' names nothing that corpus has"):
        read_records(source, format="beir")
    records, report = read_records(source, format="beir", skip_invalid=True)
    assert len(records) == report.skipped_total == 1
    with pytest.raises(UserError, match="lack 'query-id'; there are query"):
        read_records(hub_beir(monkeypatch, [{"query": "x"}]), format="beir")
    with pytest.raises(UserError, match="corpus has the splits a, b, not one"):
        read_records(hub_beir(monkeypatch, [good], ("a", "b")), format="beir")


def test_each_source_has_its_own_share_of_other_languages() -> None:
    record = Record("r", "q", (Document("1", "p", "de"), Document("2", "o", "en")), language="de")
    own = SourceOptions("x", cross_lingual=1.0)
    sampling = SamplingOptions(cross_lingual=0.0)
    assert draw(record, own, sampling, (0.5, 0.0, 0.0), 0).positive.language == "en"
    assert draw(record, SourceOptions("x"), sampling, (0.5, 0.0, 0.0), 0).positive.language == "de"


def test_what_is_given_beside_a_name_replaces_the_files() -> None:
    named = resolve_source(SourceOptions("source:nli"))
    assert (named.name, named.private, named.negatives) == ("nli", True, 1)
    own = resolve_source(SourceOptions("source:nli", in_batch_negatives=True, name="mine", negatives=3))
    assert (own.name, own.private, own.negatives, own.path) == ("mine", False, 3, named.path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SourceOptions("a-{language}.jsonl"), "path has {language}, and languages is not given"),
        (SourceOptions("a.jsonl", languages={"de": "de"}), "path has no {language}"),
        (SourceOptions("{language}", languages={"de": "de"}, stream=True), "cannot be streamed as one"),
        (SourceOptions("a", cross_lingual=2.0), "cross_lingual is 2.0"),
        (SourceOptions("source:nothing"), "no source has this name; there are"),
    ],
)
def test_what_is_refused(source, message) -> None:
    with pytest.raises(UserError) as caught:
        check_options(DataOptions(train=(source,)))
    assert message in str(caught.value)
    with pytest.raises(UserError, match=r"has no \{instruction\}"):
        check_options(DataOptions(train=("a",), instruction_prompt="Instruct: "))
