"""How fast cleaning is.

    python -m benchmarks.cleaning --source pairs.parquet

draws 50,000 pairs from the source (30 % of them copies, half of these edited), then runs
`lit-retrofit clean` with one rule at a time and all together, and the usual loop over datasketch's
MinHashLSH, each in a process of its own. `python -m benchmarks.cleaning.quality` measures what
training on cleaned records is worth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cleaning.pairs import write_pairs
from benchmarks.cleaning.speed import measure, table


def main() -> None:
    """Parses the options, writes the pairs if they are not there, measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cleaning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", default="quickstart:train", help="records to draw pairs from")
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/cleaning"))
    parser.add_argument("--output", type=Path, help="write the table there, too")
    options = parser.parse_args()
    path = options.folder / f"pairs-{options.pairs}.jsonl"
    if not path.exists():
        write_pairs(options.source, options.pairs, path)
    found = table(measure(path, options.workers), options.workers)
    print(found)
    if options.output:
        options.output.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
