"""The mixture's benchmark on a small file: what it measures is there and adds up."""

from __future__ import annotations

import pyarrow.parquet as pq

from benchmarks.mixture import measure, write_records


def test_the_benchmark_draws_what_it_wrote(tmp_path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, 2500, 1000)
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    figures = measure(path, batch_size=100, seconds=60.0)
    assert figures["records"] == 2500
    assert figures["records_drawn"] == 2400  # the first batch is part of the start
    assert figures["records_per_second"] > 1000
    assert 0 < figures["peak_resident_gb"] < 8
