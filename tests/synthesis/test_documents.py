"""Documents out of all kinds of files, and what is no document."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.documents import DocumentOptions, read_documents

GERMAN = "Entfernt den Filter von den ausgewählten Zellen, sodass alle Zeilen sichtbar sind."
ENGLISH = "Removes the filter from the selected cells, so that all rows are visible."


def read(path, skip_invalid=False, seed=0, **options):
    return read_documents(path, DocumentOptions(**options), seed=seed, skip_invalid=skip_invalid)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_corpus_file_gives_titles_languages_and_groups(tmp_path):
    rows = [
        {"_id": 7, "title": "Filter", "text": GERMAN, "metadata": {"parallel_id": "p"}},
        {"docid": "e", "text": ENGLISH, "language": "en-GB", "group": "g"},
        {"text": ENGLISH + " Always."},
    ]
    first, second, third = read(write(tmp_path / "c.jsonl", rows))[0]
    assert (first.document.id, first.title, first.body, first.group) == ("7", "Filter", GERMAN, "p")
    assert first.document.text == f"Filter {GERMAN}" and first.language == "de"  # identified
    assert second.language == "en-GB" and second.group == "g"
    assert third.document.id.startswith("text:") and third.group == third.document.id


def test_parquet_beir_folders_and_training_records(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "text": [ENGLISH]}), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet")[0][0].document.id == "a"
    folder = tmp_path / "beir"
    folder.mkdir()
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write(json.dumps({"_id": "b", "title": "", "text": ENGLISH}) + "\n")
    assert read(folder)[0][0].document.id == "b"
    pairs = [
        {"query": "hidden", "positive": GERMAN, "document_id": "d", "parallel_id": "p", "language": "de"},
        {"query": "hidden too", "positive": GERMAN, "document_id": "d", "language": "de"},
    ]
    documents, reasons = read(write(tmp_path / "pairs.jsonl", pairs))
    assert [(d.document.id, d.group) for d in documents] == [("d", "p")]
    assert reasons == {"repeated id, same text": 1} and "hidden" not in repr(documents)


def test_what_is_left_out_is_counted(tmp_path):
    rows = [
        {"id": 1, "text": "short"},
        {"id": 2, "text": "x" * 10_000_000},
        {"id": 3, "text": "\x00\x01\x7fELF" + "\x02" * 50 + ENGLISH},
        {"id": 4, "text": "Ent\ufffdernt \ufffd\ufffd\ufffd den Filter von den ausgew\ufffdhlten Zellen"},
        {"id": 5, "text": ENGLISH},
        {"id": 5, "text": ENGLISH},
        {"id": 6, "text": ENGLISH},
        {"id": 7, "text": GERMAN},
        # direction marks and joiners are no damage
        {
            "id": 8,
            "text": "\u200fيزيل عامل التصفية من الخلايا\u200c المحددة بحيث تظهر كل الصفوف مرة أخرى\u200f",
        },
    ]
    documents, reasons = read(write(tmp_path / "c.jsonl", rows), languages=("en", "ar"))
    assert [document.document.id for document in documents] == ["5", "8"]
    assert documents[1].language == "ar"
    assert reasons == {
        "shorter than min_characters": 1,
        "longer than max_characters": 1,
        "binary or wrongly decoded": 2,
        "repeated id, same text": 1,
        "same text under another id": 1,
        "of other languages": 1,
    }


def test_an_id_with_two_texts_stops_or_is_counted(tmp_path):
    path = write(tmp_path / "c.jsonl", [{"id": 1, "text": ENGLISH}, {"id": 1, "text": GERMAN}])
    with pytest.raises(UserError, match=r"c\.jsonl:2: field 'id' repeats '1' with another text"):
        read(path)
    documents, reasons = read(path, skip_invalid=True)
    assert len(documents) == 1 and sum(reasons.values()) == 1


def test_mixed_encodings_and_broken_rows_are_told_with_their_line(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(json.dumps({"text": ENGLISH}).encode() + b'\n{"text": "ausgew\xe4hlt"}\n')
    with pytest.raises(UserError, match=r"c\.jsonl:2: not UTF-8"):
        read(path)
    with pytest.raises(UserError, match=r"d\.jsonl:1: field 'text' is null"):
        read(write(tmp_path / "d.jsonl", [{"text": None}]))
    with pytest.raises(UserError, match=r"no document is left \(shorter than min_characters: 1\)"):
        read(write(tmp_path / "e.jsonl", [{"text": "short"}]))


def test_the_draw_is_repeatable_and_does_not_hang_on_other_documents(tmp_path):
    rows = [{"id": i, "text": f"{ENGLISH} {i}", "language": "en"} for i in range(40)]
    rows += [{"id": f"d{i}", "text": f"{GERMAN} {i}", "language": "de"} for i in range(3)]
    documents, reasons = read(write(tmp_path / "c.jsonl", rows), per_language=5)
    ids = [d.document.id for d in documents]
    assert len(ids) == 8 and reasons == {"beyond per_language, not drawn": 35}
    again = read(write(tmp_path / "d.jsonl", rows[::-1]), per_language=5)[0]
    assert {d.document.id for d in again} == set(ids)
    other = read(tmp_path / "c.jsonl", per_language=5, seed=1)[0]
    assert {d.document.id for d in other} != set(ids)
