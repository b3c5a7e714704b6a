"""Corpora in the forms that people have."""

import json

import pytest

from lit_retrofit.data.records import Document, text_id
from lit_retrofit.errors import UserError
from lit_retrofit.side_by_side.corpus import read_corpus


def test_a_folder_a_table_and_lines_give_the_same_documents(tmp_path) -> None:
    rows = [("a", "T", "one"), ("7", "", "two")]
    expected = [Document("a", "T one", "en"), Document("7", "two", "en")]
    (tmp_path / "beir").mkdir()
    lines = [{"_id": i, "title": t, "text": x, "metadata": {"language": "en"}} for i, t, x in rows]
    (tmp_path / "beir" / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = "".join(f"{i},{t},{x},en\n" for i, t, x in rows)
    (tmp_path / "c.csv").write_text("id,title,text,language\n" + table)
    for name in ("beir", "c.csv"):
        assert read_corpus(tmp_path / name, skip_invalid=False) == (expected, {})


def test_rows_without_ids_are_known_by_their_text_and_equal_ones_are_one(tmp_path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "one"}\n')
    documents, _ = read_corpus(tmp_path / "c.jsonl", skip_invalid=False)
    assert [(document.id, document.text) for document in documents] == [
        (text_id("one"), "one"),
        (text_id("two"), "two"),
    ]


@pytest.mark.parametrize(
    "content, part",
    [
        ('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', "c.jsonl:2: id '1' has another text"),
        ('{"text": "a"}\n{"text": " "}\n', "c.jsonl:2"),
        ('{"query": "q", "positive": "p"}\n', "training records"),
    ],
)
def test_mistakes(tmp_path, content: str, part: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(UserError, match=part):
        read_corpus(tmp_path / "c.jsonl", skip_invalid=False)


def test_invalid_rows_are_counted(tmp_path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n{"text": " "}\n{"text": null}\n{"text": ""}\n')
    documents, skipped = read_corpus(tmp_path / "c.jsonl", skip_invalid=True)
    assert len(documents) == 1 and sum(skipped.values()) == 3
    (tmp_path / "c.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(UserError, match="no row has a text"):
        read_corpus(tmp_path / "c.jsonl", skip_invalid=True)
    with pytest.raises(UserError, match="no such file"):
        read_corpus(tmp_path / "nothing", skip_invalid=True)
