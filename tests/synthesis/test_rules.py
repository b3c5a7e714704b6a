"""The writer without a model."""

from __future__ import annotations

import json

import pytest

from lit_retrofit.cli import main
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Document
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.documents import SourceDocument
from lit_retrofit.synthesis.generators.rules import RuleWriter
from lit_retrofit.synthesis.phrases import PhraseFinder
from lit_retrofit.synthesis.synthesize import synthesize


def source(id, body, language="en", title=None):
    text = f"{title} {body}" if title else body
    return SourceDocument(Document(id, text, language), title, body, id)


FILLER = [source(f"f{i}", f"This is the page about the thing of number {i}. It is here.") for i in range(12)]


def queries(document, template, copies=1, corpus=()):
    return list(RuleWriter([document, *FILLER, *corpus]).write(document, template, 0, copies))


def test_a_title_is_for_the_body_alone():
    document = source("d", "Removes the filter from all of the selected cells.", title="Reset Filter")
    (draft,) = queries(document, "title")
    assert draft.query == "Reset Filter" and draft.positive.text == document.body
    assert draft.positive.id != "d" and draft.group == "d"  # another text has another id, but the same page
    assert not queries(source("e", "No title here at all, only a body of text."), "title")


def test_a_sentence_is_for_the_rest():
    body = (
        "Removes the filter. All rows of the sheet can be seen once more afterwards. Save it now, go on then."
    )
    first, second = queries(source("d", body), "sentence", copies=2)
    assert first.query == "Removes the filter"
    assert (
        first.positive.text
        == "All rows of the sheet can be seen once more afterwards. Save it now, go on then."
    )
    assert second.positive.text == "Removes the filter. Save it now, go on then."
    assert not queries(source("e", "One sentence alone leaves no rest."), "sentence")
    (chinese,) = queries(
        source("z", "删除筛选器。" + "之后可以再次看到工作表的所有行。" * 5, "zh"), "sentence"
    )
    assert chinese.query == "删除筛选器" and "删除筛选器" not in chinese.positive.text


def test_keywords_are_what_is_rare_in_the_corpus_and_stand_in_the_document():
    document = source("d", "This is the page about pivot tables. A pivot table is here. It is the thing.")
    phrases = PhraseFinder([document, *FILLER]).phrases(document)
    assert phrases[0].startswith("pivot")
    assert not {"the", "This", "is", "page"} & set(phrases)
    for text in phrases:
        assert text in document.body
    (draft,) = queries(document, "question")
    assert phrases[0] in draft.query and draft.query.endswith("?")


@pytest.mark.parametrize(
    ("language", "body", "phrase"),
    [
        ("ja", "ピボットテーブルを作成します。ピボットテーブルを使います。", "ピボットテーブル"),
        ("ru", "Сводная таблица показывает сводные данные. Сводная таблица полезна.", "Сводная таблица"),
    ],
)
def test_other_scripts(language, body, phrase):
    filler = [source(f"x{i}", "показывает данные полезна 作成します使います", language) for i in range(9)]
    document = source("d", body, language)
    assert PhraseFinder([document, *filler]).phrases(document)[0].casefold() == phrase.casefold()


def test_the_command_gives_the_same_twice_and_fit_can_read_it(corpus, tmp_path, capsys):
    for name in ("a", "b"):
        assert (
            main(["synthesize", str(corpus), "--output", str(tmp_path / f"{name}.jsonl"), "--queries", "2"])
            == 0
        )
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    records = read_records(tmp_path / "a.jsonl")[0]
    assert {record.task for record in records} <= {"sentence", "keywords", "question"}
    assert json.loads(records[0].provenance)["model"] == "rules 1"
    summary = json.loads((tmp_path / "a.summary.json").read_text())
    dropped = sum(drops["count"] for drops in summary["dropped"].values())
    assert summary["written"] - dropped == len(records) == sum(summary["kept"].values())
    assert f"{len(records)} records" in capsys.readouterr().out
    assert not (tmp_path / "a.answers.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ["crosslingual"]}, "needs a language model"),
        ({"generator": "local"}, "needs a model"),
        ({"generator": "endpoint", "model": "m", "templates": ["title"]}, "no model template 'title'"),
        ({"model": "m"}, "rules have no model"),
        ({"hard_negatives": 1}, "rules have no model"),
        ({"data": None}, "give the documents"),
        ({"queries": 0}, "queries must be 1"),
        ({"generator": "endpoint", "model": "m"}, "OPENAI_API_KEY is not set"),
        ({"generator": "local", "model": "nowhere.gguf"}, "no such file"),
        ({"data": "nothing.jsonl"}, "no such file"),
        ({"output": "out.parquet"}, "jsonl"),
    ],
)
def test_mistakes_are_told_in_one_line(corpus, tmp_path, monkeypatch, options, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    data = options.pop("data", str(corpus))
    output = tmp_path / options.pop("output", "out.jsonl")
    with pytest.raises(UserError, match=message) as caught:
        synthesize(data, output=output, **options)
    assert "\n" not in str(caught.value) and not output.exists()


def test_an_existing_output_is_kept(corpus, tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        synthesize(str(corpus), output=tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"
