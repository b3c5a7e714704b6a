"""Hub data sets in BEIR's layout: the configurations corpus, queries and (as default) the judgements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from lit_retrofit.data.beir import beir_document, beir_query
from lit_retrofit.data.corpus import Item
from lit_retrofit.data.fields import BadRow, Row
from lit_retrofit.data.hub import load, parse
from lit_retrofit.data.read_report import Skips
from lit_retrofit.data.records import Record
from lit_retrofit.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

_QRELS = ("query-id", "corpus-id", "score")


def read_hub_beir(source: str, skips: Skips) -> Iterator[tuple[int, Record]]:
    """Reads the records of one split: each judged query with its relevant documents.

    Only documents that a judgement names leave the cache on disk: FEVER judges a few of its five million.
    With ``hf:owner/name:de`` the configurations are de-corpus, de-queries and de-qrels (mteb's layout of
    multilingual sets).

    Args:
        source: ``hf:owner/name[:language]@split``.
        skips: what to do about judgements of unknown queries and documents.

    Yields:
        The judgements' row of the query's first positive document, and the record.

    Raises:
        UserError: a configuration is missing, or an id is unknown.
    """
    name, config, split = parse(source)
    prefix = f"{config}-" if config else ""
    qrels = load(source, name, f"{prefix}qrels" if config else "default", split)
    positives = _positives(qrels, source)
    queries = _by_id(_whole(source, name, f"{prefix}queries"), set(positives), beir_query)
    wanted = {document for _, ids in positives.values() for document in ids}
    corpus = _by_id(_whole(source, name, f"{prefix}corpus"), wanted, beir_document)
    for query_id, (row, ids) in positives.items():
        known = tuple(corpus[id] for id in ids if id in corpus)
        if query_id not in queries or len(known) < len(ids):
            what = "query-id" if query_id not in queries else "corpus-id"
            fault = BadRow(what, f"names nothing that {prefix}{_CONFIGS[what]} has", "skip invalid rows")
            skips.bad_row(source, row, fault)
        if query_id in queries and known:
            query = queries[query_id]
            yield row, Record(query.id, query.text, known, language=query.language)


_CONFIGS = {"query-id": "queries", "corpus-id": "corpus"}


def _positives(qrels: Dataset, source: str) -> dict[str, tuple[int, list[str]]]:
    missing = [name for name in _QRELS if name not in qrels.column_names]
    if missing:
        raise UserError(
            f"{source}: no BEIR layout: its judgements lack '{missing[0]}'; there are "
            f"{', '.join(qrels.column_names):.200}"
        )
    found: dict[str, tuple[int, list[str]]] = {}
    for number, row in enumerate(qrels, 1):
        if row["score"] > 0:
            found.setdefault(str(row["query-id"]), (number, []))[1].append(str(row["corpus-id"]))
    return found


def _whole(source: str, name: str, config: str) -> Dataset:
    """The one split of a configuration, whatever it is called."""
    splits = load(source, name, config, None)
    if len(splits) != 1:
        raise UserError(f"{source}: no BEIR layout: {config} has the splits {', '.join(splits)}, not one")
    return next(iter(splits.values()))


def _by_id(dataset: Dataset, wanted: set[str], convert: Callable[[Row], Item]) -> Mapping[str, Item]:
    found: dict[str, Item] = {}
    for batch in dataset.with_format("arrow").iter(batch_size=8192):
        ids = batch.column("_id").to_pylist()
        rows = [i for i, id in enumerate(ids) if str(id) in wanted]
        for row in batch.take(rows).to_pylist() if rows else ():
            item = convert(row)
            found[item.id] = item
    return found
