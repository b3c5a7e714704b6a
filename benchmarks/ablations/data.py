"""What arms are trained and measured on: a training sample, all training pairs, and a sample of dev."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.ablations.digest import digest
from lit_retrofit.data.beir import write_beir
from lit_retrofit.data.formats import read_records, write_records
from lit_retrofit.data.parallel import add_parallel_positives
from lit_retrofit.data.records import Record
from lit_retrofit.data.splitting import split_by_group, to_retrieval_set
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

DEV_SHARE = 0.15  # of the shipped pages, where no pairs are given


@dataclass(frozen=True)
class Data:
    """The files of an ablation.

    Attributes:
        train: a seeded sample of the training pages, with all their languages and queries.
        all: all training pairs.
        dev: a BEIR folder of a sample of dev.
        texts: what they are, in words.
    """

    train: Path
    all: Path
    dev: Path
    texts: str


def make_data(pairs: Path | None, folder: Path, train_pairs: int, dev_pairs: int) -> Data:
    """Writes the files, or finds those of an earlier run.

    Args:
        pairs: a parquet file with query, positive, language, parallel_id and split (train, dev); without it
            the shipped quickstart:train is split by page.
        folder: of all ablations.
        train_pairs: about so many in the training sample.
        dev_pairs: about so many in dev.
    """
    source = pairs or resolve_data("quickstart:train")
    own = folder / f"data-{digest(source.read_bytes(), train_pairs, dev_pairs)}"
    data = Data(
        own / "train.jsonl", own / "all.jsonl", own / "dev", str(pairs.name if pairs else "quickstart:train")
    )
    if (data.dev / "qrels" / "test.tsv").is_file():  # written last
        return data
    own.mkdir(parents=True, exist_ok=True)
    if pairs is None:
        train, dev = split_by_group(read_records(source)[0], DEV_SHARE, 0)
    else:
        train, dev = (_split(pairs, split, own) for split in ("train", "dev"))
    write_records(train, data.all, overwrite=True)
    write_records(sample_pages(train, train_pairs), data.train, overwrite=True)
    held_out = add_parallel_positives(sample_pages(dev, dev_pairs))
    write_beir(to_retrieval_set(held_out, "dev"), data.dev, overwrite=True)
    return data


def _split(pairs: Path, split: str, folder: Path) -> list[Record]:
    table = pq.read_table(pairs)
    missing = {"query", "positive", "split"} - set(table.column_names)
    if missing:
        raise UserError(f"{pairs}: no column '{min(missing)}'; it needs query, positive, split (train, dev)")
    part = table.filter(pc.equal(table["split"], split))
    if "parallel_id" in table.column_names and "group" in table.column_names:
        # Pages are versions of each other by parallel_id; a group may join several.
        part = part.drop_columns(["group"])
    path = folder / f"{split}.parquet"
    pq.write_table(part, path)
    return read_records(path)[0]


def sample_pages(records: Sequence[Record], most: int, seed: int = 0) -> list[Record]:
    """Whole pages, drawn until there are about so many records; every language has one page at least."""
    pages: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        pages.setdefault(record.group or record.positives[0].id, []).append(number)
    names = sorted(pages)
    random.Random(seed).shuffle(names)
    chosen: set[int] = set()
    languages: set[str | None] = set()
    for name in names:
        own = {records[number].language for number in pages[name]}
        if len(chosen) < most or not own <= languages:
            chosen.update(pages[name])
            languages |= own
    return [records[number] for number in sorted(chosen)]
