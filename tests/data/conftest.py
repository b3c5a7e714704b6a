"""Records and a tokenizer whose tokens can be read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WriteParquet = Callable[..., str]


@pytest.fixture
def write_parquet(tmp_path: Path) -> WriteParquet:
    """``write_parquet(rows, "a.parquet", row_group=4)`` gives the path as a string."""

    def write(rows: Sequence[dict], name: str = "rows.parquet", row_group: int = 4, schema=None) -> str:
        pq.write_table(
            pa.Table.from_pylist(list(rows), schema=schema), tmp_path / name, row_group_size=row_group
        )
        return str(tmp_path / name)

    return write
