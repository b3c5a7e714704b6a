"""How fast a mixture over a large streamed parquet file starts and samples, and in how much memory.

``python -m benchmarks.mixture`` writes a synthetic file of five million records (about 200 MB, once), starts
a mixture over it, and draws batches without tokenizing them. What it holds itself to: a start within 10 s,
less than 1 GB resident, 50,000 records per second.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.options import SamplingOptions, SourceOptions
from lit_retrofit.data.table_stream import TableStream

SCHEMA = pa.schema([(name, pa.string()) for name in ("query", "positive", "negative", "language")])


def write_records(path: Path, records: int, row_group: int) -> None:
    """Writes distinct queries, positives and negatives of about 50, 90 and 70 characters."""
    partial = path.with_suffix(".partial")
    with pq.ParquetWriter(partial, SCHEMA) as writer:
        for begin in range(0, records, row_group):
            numbers = range(begin, min(begin + row_group, records))
            columns = [
                [f"what is the number of item {i} in the catalogue" for i in numbers],
                [
                    f"Item {i} has the number {i * 7919 % 100003} and is found in hall {i % 97}, "
                    f"shelf {i % 1009}; it weighs {i % 13} kilograms."
                    for i in numbers
                ],
                [
                    f"Item {i + 1} was sold in {1900 + i % 120} to a customer from hall {i % 89}."
                    for i in numbers
                ],
                [("de", "en", "fr")[i % 3] for i in numbers],
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=row_group)
    partial.replace(path)


def measure(path: Path, batch_size: int, seconds: float, epoch: int = 0) -> dict[str, float]:
    """Starts a mixture over the file and draws for a while from an epoch's beginning."""
    started = time.perf_counter()
    source = SourceOptions(str(path), stream=True)
    mixture = Mixture([(source, TableStream(source))], SamplingOptions(batch_size, negatives=1))
    mixture.batch(epoch, 0)
    begun = time.perf_counter()
    drawn = 0
    for position in range(1, len(mixture)):
        drawn += len(mixture.batch(epoch, position))
        if time.perf_counter() - begun > seconds:
            break
    taken = time.perf_counter() - begun
    jumped = time.perf_counter()
    mixture.batch(epoch + 1, len(mixture) // 2)
    return {
        "records": mixture.records,
        "seconds_to_first_batch": begun - started,
        "records_per_second": drawn / taken,
        "records_drawn": drawn,
        "seconds_to_resume_in_the_middle": time.perf_counter() - jumped,
        "peak_resident_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main() -> None:
    """Parses the options, writes the file if it is not there, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixture", description=__doc__)
    parser.add_argument("--file", type=Path, default=Path("runs/benchmarks/mixture.parquet"))
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--row-group", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    if not options.file.exists():
        options.file.parent.mkdir(parents=True, exist_ok=True)
        write_records(options.file, options.records, options.row_group)
    figures = measure(options.file, options.batch_size, options.seconds)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
