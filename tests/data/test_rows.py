"""Rows of every file type, and the one line that a damaged file earns."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_retrofit.data.rows import read_rows
from lit_retrofit.errors import UserError

JSONL = '{"query": "a", "n": 1}\n\n{"query": "ü", "n": null}\n'
CSV = 'query,positive\na,"two\nlines, quoted ""so"""\n\nb,c\n'


def rows_of(path: Path) -> list[tuple[int, dict]]:
    return list(read_rows(path))


def fault_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        rows_of(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.JSONL", "a.jsonl.gz", "a.json.gz"])
def test_json_lines_keep_their_numbers_over_blank_lines(tmp_path: Path, name: str) -> None:
    data = JSONL.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert rows_of(tmp_path / name) == [(1, {"query": "a", "n": 1}), (3, {"query": "ü", "n": None})]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_csv_rows_are_numbered_by_the_line_they_begin_on(tmp_path: Path, name: str, separator: str) -> None:
    data = CSV.replace("query,", f"query{separator}").replace("a,", f"a{separator}")
    data = data.replace("b,", f"b{separator}").encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert rows_of(tmp_path / name) == [
        (2, {"query": "a", "positive": 'two\nlines, quoted "so"'}),
        (5, {"query": "b", "positive": "c"}),
    ]


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "query,n\r\na,1\r\n"), ("a.jsonl", '{"query": "a", "n": "1"}')]
)
def test_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [row for _, row in rows_of(tmp_path / name)] == [{"query": "a", "n": "1"}]


def test_parquet_rows_over_several_batches(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(10_000)), "negatives": [["x", "y"]] * 9_999 + [None]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3_000)
    rows = rows_of(tmp_path / "a.parquet")
    assert [line for line, _ in rows] == list(range(1, 10_001))
    assert [row["n"] for _, row in rows] == list(range(10_000))
    assert rows[0][1]["negatives"] == ["x", "y"]
    assert rows[-1][1]["negatives"] is None


def test_rows_are_streamed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\nbroken\n')
    assert next(read_rows(tmp_path / "a.jsonl")) == (1, {"n": 1})


@pytest.mark.parametrize(
    ("name", "data", "place", "says"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', ":2:", "not valid JSON (Expecting value at column"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', ":2:", "a JSON array where an object belongs"),
        ("a.jsonl", b"\nnull\n", ":2:", "a JSON null where"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", ":1:", "not usable JSON"),
        ("a.jsonl", b'{"a": "x"}\n{"a": "\xff"}\n', ":2:", "not UTF-8 at byte 8"),
        ("a.jsonl", b"", ":", "no records"),
        ("a.jsonl", b"\n \n", ":", "no records"),
        ("a.csv", b"query,positive\n", ":", "no records"),
        ("a.csv", b"query,positive\na,b\na,b,c\n", ":3:", "3 columns where the header has 2"),
        ("a.csv", b"query,positive\na\n", ":2:", "1 columns where the header has 2"),
        ("a.csv", b'query,positive\na,"b"c\n', ":2:", "malformed row"),
        ("a.csv", b'query,positive\na,"never closed\nb,c\n', ":2:", "malformed row"),
        ("a.csv", b"query,query\na,b\n", ":1:", "column 'query' appears twice"),
        ("a.csv", b"query,positive\na,\xe9\n", ":2:", "not UTF-8"),
        ("a.xlsx", b"PK", ":", "supported are .jsonl, .json, .csv, .tsv, .parquet"),
        ("a.parquet.gz", b"PK", ":", "unknown file type"),
        ("a.parquet", b"PAR1 nonsense", ":", "damaged or no parquet file"),
        ("a.parquet", b"", ":", "damaged or no parquet file"),
        ("a.jsonl.gz", b'{"a": 1}\n', ":", "damaged gzip file"),
        # Without the time of day, which would be in the test's name.
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-12], ":", "damaged gzip file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, data: bytes, place: str, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    message = fault_of(tmp_path / name)
    assert message.startswith(place + " ")
    assert says in message


def test_corrupt_page_inside_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"t": [f"text {i} " * 20 for i in range(5_000)]}), path)
    data = bytearray(path.read_bytes())
    data[200:5000] = bytes(4800)
    path.write_bytes(data)
    assert "damaged or no parquet file" in fault_of(path)


def test_parquet_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "no records" in fault_of(tmp_path / "a.parquet")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in fault_of(tmp_path / "a.jsonl")
    assert "no such file" in fault_of(tmp_path / "a.xyz")
    (tmp_path / "b.jsonl").mkdir()
    assert "this is a directory" in fault_of(tmp_path / "b.jsonl")
