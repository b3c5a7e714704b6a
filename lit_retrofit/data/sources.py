"""Where the data comes from: the options, and reading what they name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.parallel import add_parallel_positives, join_answers
from lit_retrofit.data.records import Record, RetrievalSet
from lit_retrofit.data.rows import read_rows
from lit_retrofit.data.splitting import split_by_group, to_retrieval_set
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataOptions:
    """Where the data is and how it is prepared.

    Attributes:
        train: training records: files, BEIR folders or hub data sets (``hf:owner/name``);
            ``quickstart:train`` is the embedded set.
        validation: a BEIR folder or records; by default a part of the training records is split off.
        test: a BEIR folder for the `test` command; ``quickstart:test`` is the embedded one.
        predict: a JSONL, CSV or parquet file with a field `text`, for the `predict` command.
        predict_role: embed those texts as query or document.
        format: the convention of the training files, where it cannot be told from their fields.
        skip_invalid: skip and count broken records instead of stopping at the first.
        validation_share: of the groups (pages with all their translations) split off for validation.
        parallel_positives: give each query the other languages' versions of its document as further
            positives, where records name their group.
        training_document_length: cut documents to this many tokens in training only, where the model takes
            more: a step then costs less, and the trained model still embeds whole documents.
        token_budget: padded tokens of a micro-batch.
        workers: processes that tokenize; 0 tokenizes in the main process.
        seed: of the split.
    """

    train: tuple[str, ...] = ()
    validation: str | None = None
    test: str | None = None
    predict: str | None = None
    predict_role: str = "document"
    format: str | None = None
    skip_invalid: bool = False
    validation_share: float = 0.05
    parallel_positives: bool = True
    training_document_length: int | None = None
    token_budget: int = 8192
    workers: int = 0
    seed: int = 0


@dataclass(frozen=True)
class TrainingData:
    """What `fit` learns from and is validated on.

    Attributes:
        records: for training.
        validation: None where nothing is held out.
        reports: a line per source, of what was read and skipped.
    """

    records: list[Record]
    validation: RetrievalSet | None
    reports: list[str]


def read_training_data(options: DataOptions) -> TrainingData:
    """Reads the training sources, joins what is known to answer a query, and splits validation off.

    Raises:
        UserError: nothing is given, a source cannot be read, sources contradict each other, or a side of
            the split is empty.
    """
    if not options.train and options.validation is None:
        required(None, "train")
    records: list[Record] = []
    reports: list[str] = []
    for source in options.train:
        name = source if source.startswith("hf:") else resolve_data(source)
        found, report = read_records(name, format=options.format, skip_invalid=options.skip_invalid)
        records += found
        _check_ids(records, source)
        reports.append(str(report))
        log.info(reports[-1])
    records = join_answers(records)
    if options.parallel_positives:
        records = add_parallel_positives(records)
    if options.validation is not None:
        return TrainingData(records, _read_validation(options.validation, options), reports)
    train, held_out = split_by_group(records, options.validation_share, options.seed)
    if not train or (options.validation_share > 0 and not held_out):
        side = "training" if not train else "validation"
        raise UserError(
            f"data.options.validation_share {options.validation_share} of {len(records)} records leaves no "
            f"{side} data; change it (0 trains on everything, without validation)"
        )
    return TrainingData(train, to_retrieval_set(held_out, "validation") if held_out else None, reports)


def _read_validation(source: str, options: DataOptions) -> RetrievalSet:
    path = resolve_data(source)
    if path.is_dir():
        return read_beir(path)
    records, _ = read_records(path, format=options.format, skip_invalid=options.skip_invalid)
    return to_retrieval_set(add_parallel_positives(records), "validation")


def check_options(options: DataOptions) -> None:
    """Refuses values that are out of range."""
    if options.token_budget < 1:
        raise UserError(f"data.options.token_budget is {options.token_budget}; it must be at least 1")
    if not 0 <= options.validation_share < 1:
        raise UserError(
            f"data.options.validation_share is {options.validation_share}; it is a share, 0 to below 1"
        )


def _check_ids(records: Sequence[Record], source: str) -> None:
    """Documents of several sources share batches: an id must mean the same text in all of them."""
    texts: dict[str, str] = {}
    for record in records:
        for document in (*record.positives, *record.negatives):
            if texts.setdefault(document.id, document.text) != document.text:
                raise UserError(
                    f"{source}: document id '{document.id}' has another text in an earlier source of "
                    "data.options.train; give every text its own id"
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
