"""Streamed tables: every row once, in an order of the seed, from anywhere, within bounded memory."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_retrofit.data.options import SourceOptions
from lit_retrofit.data.records import is_made_up
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.errors import UserError

KEY = (0, 7)


def rows(count: int, first: int = 0) -> list[dict]:
    return [
        {
            "query": f"q{i}",
            "positive": f"p{i}",
            "negative": f"n{i}",
            "language": ("de", "en", "en", None)[i % 4],
        }
        for i in range(first, first + count)
    ]


def stream(path: str, buffer: int = 5, skip_invalid: bool = False, **settings) -> TableStream:
    return TableStream(
        SourceOptions(path, stream=True, shuffle_buffer=buffer, **settings), skip_invalid=skip_invalid
    )


def queries(source: TableStream, key=KEY, start: int = 0, count: int | None = None) -> list[str]:
    taken = source.take(key, start, len(source) - start if count is None else count)
    return [record.query for record, _ in taken]


@pytest.mark.parametrize("row_group", [1, 4, 100])
@pytest.mark.parametrize("buffer", [1, 5, 1000])
def test_a_pass_holds_every_row_once(write_parquet, row_group: int, buffer: int) -> None:
    source = stream(write_parquet(rows(23), row_group=row_group), buffer)
    first, second = queries(source), queries(source, (0, 8))
    assert sorted(first) == sorted(second) == sorted(f"q{i}" for i in range(23))
    assert first == queries(source)
    if buffer > 1 or row_group == 1:  # else there is nothing to shuffle
        assert first != second
        assert first != [f"q{i}" for i in range(23)]


@pytest.fixture(scope="module")
def some_file(tmp_path_factory) -> str:
    import pyarrow.parquet as pq

    path = tmp_path_factory.mktemp("streams") / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows(31)), path, row_group_size=7)
    return str(path)


@given(st.integers(0, 31), st.integers(1, 12), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_any_part_of_a_pass_can_be_taken_at_once(some_file, start: int, count: int, buffer: int) -> None:
    whole = queries(stream(some_file, buffer))
    source = stream(some_file, buffer)
    assert queries(source, start=start, count=min(count, 31 - start)) == whole[start : start + count]
    # Going on, going back, and another pass in between: each as from the beginning.
    assert queries(source, start=0, count=3) == whole[:3]
    queries(source, (1, 1), min(2, len(source)), 4)
    assert queries(source, start=3, count=9) == whole[3:12]


def test_windows_mix_row_groups_and_the_rest_stays_apart(write_parquet) -> None:
    """A window of ten rows holds two whole row groups of five; which ones changes from pass to pass."""
    source = stream(write_parquet(rows(40), row_group=5), buffer=10)
    pairs = set()
    for number in range(20):
        found = queries(source, (number,), 0, 10)
        groups = {int(query[1:]) // 5 for query in found}
        assert len(groups) == 2
        assert found != sorted(found)
        pairs.add(frozenset(groups))
    assert len(pairs) > 5


def test_several_files_and_arrow(tmp_path, write_parquet) -> None:
    write_parquet(rows(6), "part-0.parquet")
    write_parquet(rows(5, 6), "part-1.parquet")
    assert sorted(queries(stream(str(tmp_path / "part-*.parquet")))) == sorted(f"q{i}" for i in range(11))
    table = pa.Table.from_pylist(rows(11))
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    for name in ("a.arrow", "b.arrow"):
        source = stream(str(tmp_path / name))
        assert all(is_made_up(record.id) for record, _ in source.take(KEY, 0, 11))
        assert sorted(queries(source)) == sorted(f"q{i}" for i in range(11))
        assert queries(source, start=4, count=5) == queries(source)[4:9]


def test_at_most_so_many_rows_of_a_language(write_parquet) -> None:
    path = write_parquet(rows(40), row_group=6)  # 10 de, 20 en, 10 unknown
    source = stream(path, max_per_language=12)
    found = queries(source)
    assert len(source) == len(found) == len(set(found)) == 32
    assert sum(int(query[1:]) % 4 in (1, 2) for query in found) == 12
    assert source.capped == {"en": 20}
    assert queries(source, start=9, count=9) == found[9:18]
    other = TableStream(source.source, seed=1)
    assert set(queries(other)) != set(found) == set(queries(stream(path, max_per_language=12)))


def test_a_broken_row_stops_with_its_place(write_parquet) -> None:
    bad = rows(9)
    bad[6]["positive"] = None
    path = write_parquet(bad)
    with pytest.raises(UserError, match=r"rows\.parquet:7: field 'positive' is null"):
        queries(stream(path))


@pytest.mark.parametrize("buffer", [9, 100])
def test_a_broken_row_is_replaced_and_told_where_it_may_be_skipped(write_parquet, buffer: int) -> None:
    bad = rows(9)
    bad[2]["query"], bad[6]["positive"] = " ", None
    source = stream(write_parquet(bad), buffer, skip_invalid=True)
    for start in (0, 3, 6):
        found = queries(source, start=start, count=3)
        assert len(set(found)) == 3
        assert not {"q2", " ", "q6"} & set(found)
    reasons = {place.split("/")[-1]: reason for place, reason in source.take_skips()}
    assert reasons == {
        "rows.parquet:3": "field 'query' is blank",
        "rows.parquet:7": "field 'positive' is null",
    }
    assert source.take_skips() == []


def test_too_many_broken_rows(write_parquet) -> None:
    source = stream(write_parquet([{"query": "q", "positive": p} for p in ("a", "", " ", "")]), 4, True)
    with pytest.raises(UserError, match=r"too many broken rows .* from 4 rows"):
        queries(source, start=0, count=3)


def test_negatives_equal_to_a_positive_are_dropped(write_parquet) -> None:
    source = stream(write_parquet([{"query": "q", "positive": "p", "negatives": ["p", "n"]}]))
    ((record, _),) = source.take(KEY, 0, 1)
    assert [document.text for document in record.negatives] == ["n"]


def test_what_cannot_be_streamed(tmp_path, write_parquet) -> None:
    faults = {
        str(tmp_path / "none.parquet"): "no such file",
        write_parquet([{"query": "q", "answer": "a"}], "columns.parquet"): "no known format has the fields",
        write_parquet([], "empty.parquet", schema=pa.schema([("query", "string"), ("positive", "string")])): (
            "no records"
        ),
    }
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and then nothing")
    faults[str(tmp_path / "damaged.parquet")] = "damaged"
    (tmp_path / "damaged.arrow").write_bytes(b"nothing")
    faults[str(tmp_path / "damaged.arrow")] = "damaged"
    (tmp_path / "rows.jsonl").write_text("{}")
    faults[str(tmp_path / "rows.jsonl")] = "only parquet and Arrow"
    for path, message in faults.items():
        with pytest.raises(UserError, match=message) as error:
            stream(path)
        assert Path(path).name in str(error.value) and "\n" not in str(error.value)
    write_parquet(rows(2), "part-0.parquet")
    write_parquet([{"query": "q", "positive": "p"}], "part-1.parquet")
    with pytest.raises(UserError, match=r"part-1\.parquet: its columns"):
        stream(str(tmp_path / "part-*.parquet"))
    with pytest.raises(UserError, match="needs a column 'language'"):
        stream(str(tmp_path / "part-1.parquet"), max_per_language=3)
    with pytest.raises(UserError, match="'beir' cannot be streamed"):
        stream(str(tmp_path / "part-1.parquet"), format="beir")


def test_a_row_group_damaged_in_the_middle(write_parquet) -> None:
    path = Path(write_parquet(rows(400), row_group=100))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged") as error:
        queries(stream(str(path)))
    assert "\n" not in str(error.value)


def test_a_stream_can_be_sent_to_a_worker(some_file) -> None:
    source = stream(some_file)
    assert queries(pickle.loads(pickle.dumps(source))) == queries(source)
