"""Corpora as they come: repeated ids, binary, huge, in other encodings, with characters that nobody sees."""

from __future__ import annotations

import json

import pytest

from lit_retrofit.data.formats import read_records
from lit_retrofit.errors import UserError
from lit_retrofit.mining.mine import mine

OPTIONS = {"relative_margin": None, "precision": "fp32", "per_query": 6, "rank_window": 8}


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"query": f"what page {i}", "positive": f"the page {i} tells"} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write(path, texts):
    rows = [{"_id": f"c{i}", "text": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(model, pairs, corpus, **options):
    output = pairs.parent / "mined.jsonl"
    summary = mine(str(model), data=str(pairs), output=output, corpus=corpus, **{**OPTIONS, **options})
    return summary, read_records(output)[0]


def test_an_id_that_comes_twice_is_told_with_both_lines(bert_folder, pairs, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        '{"_id": "a", "text": "one"}\n{"_id": "b", "text": "two"}\n{"_id": "a", "text": "one"}\n'
    )
    with pytest.raises(UserError, match=r"corpus\.jsonl:3: field 'id' repeats 'a' of line 1"):
        run(bert_folder, pairs, corpus)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\x02\x01\x00\x00\xff\xfe" * 20, r"corpus\.jsonl:1: .*UTF-8"),
        ('{"_id": "a", "text": "one"}\n{"_id": "b", "text": "schön"}\n'.encode("latin-1"), r":2: .*UTF-8"),
        ('{"_id": "a", "text": "one"}\n'.encode("utf-16"), r":1: .*UTF-8"),
        (b'{"_id": "a", "text": "half \\ud83d"}\n', r":1: field 'text' holds half a surrogate pair"),
    ],
    ids=["binary", "latin-1 among utf-8", "utf-16", "half a character"],
)
def test_what_is_no_text_is_told_with_its_line(bert_folder, pairs, tmp_path, content, message):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        run(bert_folder, pairs, corpus)
    assert "\n" not in str(caught.value)


def test_control_characters_and_ten_megabytes_are_mined_like_other_texts(bert_folder, pairs, tmp_path):
    texts = ["\x00\x01\x02 page \x7f", "the page of text 12. " * 480_000, "word\ufffd\ufffe", "x" * 100_000]
    summary, records = run(bert_folder, pairs, write(tmp_path / "corpus.jsonl", texts), miners=["bm25"])
    assert summary.documents == 7
    for record in records:
        assert {document.text for document in record.negatives} >= set(texts)


def test_what_reads_like_the_positive_is_no_negative_in_any_direction(bert_folder, pairs, tmp_path):
    same = ["the\u200b page 0\u00ad tells", "\u202bThe page 0 tells\u202c", "the  page\t0 tells\u200f"]
    arabic = ["صفحة \u200fالكلمات\u200e 12", "עמוד \u202aword\u202c", "می\u200cخواهم"]
    summary, records = run(bert_folder, pairs, write(tmp_path / "corpus.jsonl", same + arabic))
    found = {document.text for document in records[0].negatives}
    assert not found & set(same) and found >= set(arabic)
    assert {document.text for document in records[1].negatives} & set(same)
    assert summary.candidates["identity"] >= 4
