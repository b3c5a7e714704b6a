"""Records written one by one come back equal, from either type of file."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from lit_retrofit.data import record_files
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.record_files import record_writer
from lit_retrofit.data.records import Document, Record
from lit_retrofit.errors import UserError

FULL = Record(
    id="r1",
    query="häuser\u2028 and “more”\n",
    positives=(Document("a", "one", "de"), Document("b", "two")),
    negatives=(Document("c", "three", "en"),),
    language="de",
    task="question",
    source="s",
    group="g",
    positive_scores=(0.5, 0.25),
    negative_scores=(0.125,),
    provenance='{"model": "m", "slots": {"tone": "kürz"}}',
)
OTHER = replace(FULL, id="r2", provenance='{"requests": ["k"]}')
PLAIN = [Record(f"p{i}", f"query {i}", (Document(f"d{i}", f"text {i}"),)) for i in range(5)]


@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_records_come_back_equal(tmp_path, monkeypatch, name):
    monkeypatch.setattr(record_files, "_ROW_GROUP", 2)
    path = tmp_path / name
    with record_writer(path, overwrite=False) as write:
        for record in [*PLAIN, FULL, OTHER]:
            write(record)
        assert not path.exists()
    assert read_records(path)[0] == [*PLAIN, FULL, OTHER]
    if path.suffix == ".parquet":
        assert pq.ParquetFile(path).num_row_groups == 4
    with pytest.raises(UserError, match="overwrite"), record_writer(path, overwrite=False):
        pass
    with pytest.raises(RuntimeError), record_writer(path, overwrite=True) as write:
        write(FULL)
        raise RuntimeError
    assert len(read_records(path)[0]) == 7 and [p.name for p in tmp_path.iterdir()] == [name]


def test_other_names_are_refused(tmp_path):
    with (
        pytest.raises(UserError, match=r"\.jsonl or \.parquet"),
        record_writer(tmp_path / "a.csv", overwrite=False),
    ):
        pass
