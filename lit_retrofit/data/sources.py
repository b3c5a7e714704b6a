"""Reading what the options name: training, validation and prediction data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lit_retrofit.data.adapting import Adapter
from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.capping import cap_records
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.hub import PREFIX
from lit_retrofit.data.mixture import Loaded
from lit_retrofit.data.options import DataOptions, SourceOptions
from lit_retrofit.data.parallel import add_parallel_positives, join_answers
from lit_retrofit.data.read_report import ReadReport
from lit_retrofit.data.records import Record, RetrievalSet
from lit_retrofit.data.rows import read_rows
from lit_retrofit.data.splitting import split_by_group, to_retrieval_set
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What `fit` learns from and is validated on.

    Attributes:
        sources: each with its settings, and its training records or, where it is streamed, its files.
        validation: None where nothing is held out.
        reports: a line per source, of what was read and skipped.
    """

    sources: tuple[Loaded, ...]
    validation: RetrievalSet | None
    reports: list[str]


def read_training_data(options: DataOptions) -> TrainingData:
    """Reads the training sources, joins what is known to answer a query, and splits validation off.

    Of a streamed source only the layout is read; nothing of it is joined or split off.

    Raises:
        UserError: nothing is given, a source cannot be read, sources contradict each other, or a side of
            the split is empty.
    """
    if not options.train and options.validation is None:
        required(None, "train")
    reports: list[str] = []
    read, streams = _read_sources(options, reports)
    parts = _joined(read, options.parallel_positives)
    held_out: list[Record] = []
    if options.validation is None:
        splits = [split_by_group(part, options.validation_share, options.seed) for part in parts]
        parts = [train for train, _ in splits]
        held_out = [record for _, rest in splits for record in rest]
        _check_split(options, parts, held_out, bool(streams))
    loaded: dict[SourceOptions, list[Record] | TableStream] = {**streams}
    for source, part in zip(read, parts, strict=True):
        loaded[source] = _capped(source, part, options.seed, reports)
    sources = tuple((source, loaded[source]) for source in options.sources)
    if options.validation is not None:
        return TrainingData(sources, read_validation(options.validation, options), reports)
    return TrainingData(sources, to_retrieval_set(held_out, "validation") if held_out else None, reports)


def _read_sources(
    options: DataOptions, reports: list[str]
) -> tuple[dict[SourceOptions, list[Record]], dict[SourceOptions, TableStream]]:
    read: dict[SourceOptions, list[Record]] = {}
    streams: dict[SourceOptions, TableStream] = {}
    for source in options.sources:
        if source.stream:
            stream = TableStream(source, options.format, options.skip_invalid, options.seed)
            streams[source] = stream
            reports.append(f"{source.label}: {len(stream)} rows ({stream.format}), streamed")
            log.info(reports[-1])
            _tell_capped(source, stream.capped, reports)
            continue
        read[source], found = read_source(source, format=options.format, skip_invalid=options.skip_invalid)
        for report in found:
            reports.append(str(report))
            log.info(reports[-1])
        _check_ids([record for part in read.values() for record in part], source.label)
    return read, streams


def read_source(
    source: SourceOptions,
    *,
    format: str | None = None,
    corpus: Path | None = None,
    skip_invalid: bool = False,
) -> tuple[list[Record], list[ReadReport]]:
    """Reads a source, language by language where it has several.

    Args:
        source: a named one already resolved.
        format: where the source does not say.
        corpus: the documents that Tevatron's newer rows name by id.
        skip_invalid: count rows that are no valid record, instead of stopping at the first.

    Returns:
        All records, and a report of each file or hub data set.

    Raises:
        UserError: it cannot be read, or a row is invalid.
    """
    records: list[Record] = []
    reports = []
    for part in source.parts():
        found, report = read_records(
            locate(part.path), format=part.format or format, corpus=corpus, skip_invalid=skip_invalid,
            adapter=Adapter(part),
        )  # fmt: skip
        records += found
        reports.append(report)
    return records, reports


def locate(path: str) -> str | Path:
    """Where a source's data is: the name of a hub data set as it is, a path, or that of embedded data."""
    return path if path.startswith(PREFIX) else resolve_data(path)


def _joined(read: dict[SourceOptions, list[Record]], parallel: bool) -> list[list[Record]]:
    """The sources' records with further positives from each other's."""
    records = join_answers([record for part in read.values() for record in part])
    if parallel:
        records = add_parallel_positives(records)
    rest = iter(records)
    return [list(islice(rest, len(part))) for part in read.values()]


def _check_split(
    options: DataOptions, parts: Sequence[Sequence[Record]], held_out: Sequence[Record], streamed: bool
) -> None:
    count = sum(map(len, parts))
    if not count and not streamed:
        side = "training"
    elif options.validation_share > 0 and not held_out:
        if not count:
            raise UserError(
                "nothing can be split off streamed sources for validation; name data.options.validation, or "
                "set data.options.validation_share to 0"
            )
        side = "validation"
    else:
        return
    raise UserError(
        f"data.options.validation_share {options.validation_share} of {count + len(held_out)} records leaves "
        f"no {side} data; change it (0 trains on everything, without validation)"
    )


def _capped(source: SourceOptions, records: list[Record], seed: int, reports: list[str]) -> list[Record]:
    if source.max_per_language is None:
        return records
    kept, capped = cap_records(records, source.max_per_language, seed)
    _tell_capped(source, capped, reports)
    return kept


def _tell_capped(source: SourceOptions, capped: dict[str, int], reports: list[str]) -> None:
    if capped:
        had = ", ".join(f"{language} of {count}" for language, count in sorted(capped.items()))
        reports.append(f"{source.label}: kept {source.max_per_language} records each in {had}")
        log.info(reports[-1])


def read_validation(source: str, options: DataOptions) -> RetrievalSet:
    """Held-out data: a BEIR folder, or records, whose positives are the relevant documents."""
    path = resolve_data(source)
    if path.is_dir():
        return read_beir(path)
    records, _ = read_records(path, format=options.format, skip_invalid=options.skip_invalid)
    return to_retrieval_set(add_parallel_positives(records), "validation")


def _check_ids(records: Sequence[Record], source: str) -> None:
    """Documents of several sources share batches: an id must mean the same text in all of them."""
    texts: dict[str, str] = {}
    for record in records:
        for document in (*record.positives, *record.negatives):
            if texts.setdefault(document.id, document.text) != document.text:
                raise UserError(
                    f"{source}: document id '{document.id}' has another text in an earlier source (or "
                    "language) of data.options.train; give every text its own id"
                )


def required(value: str | None, name: str) -> str:
    """The value of an option that the command cannot do without."""
    if value is None:
        raise UserError(
            f"data.options.{name} is not set; give it in the config or with --data.options.{name}"
        )
    return value


def read_texts(path: Path) -> list[str]:
    """The field `text` of every row."""
    texts = []
    for line, row in read_rows(path):
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{path}:{line}: field 'text' is missing or blank; every row needs a text to embed"
            )
        texts.append(text)
    return texts
