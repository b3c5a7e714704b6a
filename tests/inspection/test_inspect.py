"""The command, from files to the terminal, the page and the JSON file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from lit_retrofit.cli import main
from lit_retrofit.data.beir import write_beir
from lit_retrofit.data.formats import FORMATS
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.inspection.config import CUT_IN_TRAINING
from lit_retrofit.inspection.inspect import inspect
from lit_retrofit.inspection.lengths import describe
from lit_retrofit.model.loading import load_encoder

NASTY = "evil \u202etxt <script>alert(1)</script> [red]markup[/red] \x1b[31m\x00"


@pytest.fixture
def file(tmp_path):
    def write(rows, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return str(tmp_path / name)

    return write


class Balanced(HTMLParser):
    """Every tag is closed by its own, and nothing is loaded from anywhere."""

    VOID = ("meta", "br", "circle", "line", "rect", "polyline", "polygon")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "img", "link", "iframe")
        assert not {"src", "onclick", "onload"} & {name for name, _ in attributes}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


ROWS = {
    "pairs": {"query": "q", "positive": "p", "negative": "n"},
    "triplets": {"anchor": "q", "positive": "p", "negative": "n"},
    "flagembedding": {"query": "q", "pos": ["p"], "neg": ["n"]},
    "tevatron": {"query": "q", "positive_passages": [{"text": "p"}], "negative_passages": [{"text": "n"}]},
    "retrofit": {"query": "q", "positives": [{"text": "p"}], "negatives": [{"text": "n"}]},
}


@pytest.mark.parametrize("format", FORMATS)
def test_every_convention(file, format) -> None:
    found = inspect(file([ROWS[format]] * 2))
    (group,) = found.groups
    assert list(found.formats.values()) == [format]
    assert (group.records, group.negatives, group.repeated_pairs) == (2, 2, 1)


def test_a_beir_folder_and_the_embedded_data(tmp_path) -> None:
    corpus = (Document("d", "a page"), Document("e", "another"))
    write_beir(RetrievalSet("x", (Query("q", "a query"),), corpus, {"q": {"d": 1}}), tmp_path / "beir")
    found = inspect(str(tmp_path / "beir"))
    assert found.groups[0].records == found.groups[0].positives == 1
    found = inspect("quickstart:train", limit=50, examples=1)
    assert found.records == 3567 and found.groups[0].sampled == 50
    assert found.groups[0].languages[0].scripts == {"Latin": found.groups[0].languages[0].sampled}


def test_a_config_names_several_sources(file, tmp_path) -> None:
    one, two = file([ROWS["pairs"]], "one.jsonl"), file([{"frage": "q", "antwort": "p"}], "two.jsonl")
    config = tmp_path / "mix.yaml"
    config.write_text(
        "model: {not: looked at}\n"
        "data:\n  options:\n    train:\n"
        f"      - {one}\n"
        f"      - {{path: {two}, name: two, fields: {{query: frage, positive: antwort}}, language: de}}\n"
    )
    found = inspect(str(config))
    assert [group.name for group in found.groups] == [one, "two"]
    assert found.groups[1].languages[0].language == "de"
    assert found.groups[1].shared_queries == 1


def test_lengths_are_those_of_the_model(file, bert_folder) -> None:
    rows = [{"query": "ab", "positive": "x" * n} for n in (1, 10, 40)]
    found = inspect(file(rows), model=str(bert_folder), scored=0)
    lengths = found.groups[0].lengths
    tokenize = load_encoder(str(bert_folder)).tokenizer.backend
    expected = [len(tokenize("passage: " + row["positive"])["input_ids"]) for row in rows]
    assert lengths["positive"].longest == max(expected) > 24
    assert lengths["positive"].mean == pytest.approx(sum(expected) / 3)
    assert (lengths["positive"].limit, lengths["positive"].over) == (24, 1 / 3)
    assert lengths["query"].limit == 16 and found.unit == "tokens"
    assert found.groups[0].scores is None
    shorter = inspect(file(rows), model=str(bert_folder), scored=0, max_length=5).groups[0].lengths
    assert shorter["positive"].over == sum(n > 5 for n in expected) / 3


OWN = "the model's own"


@pytest.mark.parametrize(
    ("config", "max_length", "expected"),
    [
        ("", None, {"query": (16, OWN), "document": (24, OWN)}),
        (
            "model: {encoder: {query_max_length: 9, document_max_length: 30}}\n",
            None,
            {
                "query": (9, "model.encoder.query_max_length"),
                "document": (30, "model.encoder.document_max_length"),
            },
        ),
        (
            "model: {encoder: {document_max_length: 9}, document_encoder: {document_max_length: 20}}\n",
            None,
            {"query": (16, OWN), "document": (20, "model.document_encoder.document_max_length")},
        ),
        ("  training_document_length: 12\n", None, {"document": (12, CUT_IN_TRAINING)}),
        ("  training_document_length: 99\n", None, {"document": (24, OWN)}),
        (
            "  training_document_length: 12\n",
            7,
            {"query": (7, "--max_length"), "document": (7, "--max_length")},
        ),
    ],
)
def test_a_configs_limits_count(file, tmp_path, bert_folder, capsys, config, max_length, expected) -> None:
    rows = [{"query": "ab", "positive": "x" * n} for n in (1, 10, 20, 40)]
    options = f"data:\n  options:\n    train: [{file(rows)}]\n"
    path = tmp_path / "config.yaml"
    path.write_text(options + f"  {config}" if config.startswith(" ") else config + options)
    found = inspect(str(path), model=str(bert_folder), scored=0, max_length=max_length)
    assert found.limits is not None and found.limits.items() >= expected.items()
    tokens, source = expected["document"]
    tokenize = load_encoder(str(bert_folder)).tokenizer.backend
    over = sum(len(tokenize("passage: " + row["positive"])["input_ids"]) > tokens for row in rows) / 4
    (group,) = found.groups
    assert (group.lengths["positive"].limit, group.lengths["positive"].over) == (tokens, over)
    assert group.languages[0].over == over
    assert f"document {tokens} tokens ({source})" in " ".join(capsys.readouterr().out.split())


def test_bins_of_lengths() -> None:
    found = describe([0, 1, 2, 3, 4, 9], None)
    assert (found.edges, found.counts) == ((1, 2, 3, 4, 6, 8, 12), (2, 1, 1, 1, 0, 1))
    assert describe([64, 64], None).edges == (64, 96)
    assert describe([7], 7).over == 0.0 and describe([8], 7).over == 1.0


def test_the_page_the_json_and_the_terminal(file, tmp_path, bert_folder, capsys) -> None:
    rows = [
        {"query": NASTY, "positive": "page \u0627\u0644", "negative": "page \u0627\u0644", "language": "ar"},
        {"query": "b", "positive": "y" * 10_000_000, "negative": "no", "task": "question"},
        {"query": "c", "positive": "page c", "negative": "page d"},
        {"query": " ", "positive": "page"},
    ]
    path, output = file(rows), tmp_path / "out"
    assert main(["inspect", path, "--model", str(bert_folder), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    html = (output / "inspection.html").read_text(encoding="utf-8")
    content = json.loads((output / "inspection.json").read_text(encoding="utf-8"))

    page = Balanced()
    page.feed(html)
    assert page.open == []
    for text in (printed, html):
        assert not re.search("[\u202e\x1b\x00]", text)
        assert len(text) < 100_000
        assert "<U+202E>" in text or "&lt;U+202E&gt;" in text
        assert "10,000,000 characters" in text.replace("\n", " ")
    assert "[red]markup[/red]" in printed and "<script>" not in html
    assert "field 'query' is blank" in page.text and "field 'query' is blank" in " ".join(printed.split())

    (group,) = content["groups"]
    assert content["skipped"] == {"field 'query' is blank": 1}
    assert (group["records"], group["identical"], group["suspects"]["identical to the positive"]) == (3, 1, 1)
    assert group["scores"]["positives"]["count"] == 3
    assert {row["language"]: row["records"] for row in group["languages"]} == {"unknown": 2, "ar": 1}
    assert len(group["examples"]) == 3
    assert main(["inspect", path, "--output", str(output)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["inspect", path, "--output", str(output), "--overwrite"]) == 0


def test_without_a_model_the_records_own_scores_are_taken(file, capsys) -> None:
    row = {**ROWS["retrofit"], "positive_scores": [0.8], "negative_scores": [0.9]}
    found = inspect(file([row]))
    assert found.groups[0].suspects == {"above the positive": 1}
    assert found.groups[0].scores is not None and found.groups[0].scores.by == "the records' own scores"
    assert "lengths are in characters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("source:nothing", {}, "no source has this name; there are fever, gooaq"),
        ("source:none.yaml", {}, "no such file"),
        ("none.yaml", {}, "no such file"),
        ("none.jsonl", {}, "no such file"),
        ("quickstart:other", {}, "no such embedded data"),
        ("rows.jsonl", {"limit": -1}, "limit is -1"),
        ("rows.jsonl", {"near": 0.0}, "above 0 to 1"),
        ("empty.jsonl", {}, "the file has no records"),
        ("bare.yaml", {}, "has no data.options"),
        ("source:typo.yaml", {}, "no source's settings"),
        ("bad.yaml", {}, "cannot be read as a config"),
        ("words.yaml", {}, "query_max_length is 'long'; give a number of tokens"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, data, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"query": "q", "positive": "p"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bare.yaml").write_text("model: {}\n")
    (tmp_path / "typo.yaml").write_text("path: x\nwieght: 1\n")
    (tmp_path / "words.yaml").write_text(
        "data: {options: {train: [rows.jsonl]}}\nmodel: {encoder: {query_max_length: long}}\n"
    )
    (tmp_path / "bad.yaml").write_text("data: {options: {train: [{path: x, wieght: 1}]}}\n")
    with pytest.raises(UserError) as caught:
        inspect(data, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_data_is_one_line(capsys) -> None:
    assert main(["inspect"]) == 2
    assert "data" in capsys.readouterr().err
