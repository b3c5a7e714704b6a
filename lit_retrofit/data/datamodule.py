"""The Lightning data module: records to training batches, validation, test and prediction texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from lit_retrofit.data.batching import RetrievalCollator, TokenBatch, Tokenize, make_micro_batches
from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.parallel import add_parallel_positives
from lit_retrofit.data.records import Record, RetrievalSet
from lit_retrofit.data.rows import read_rows
from lit_retrofit.data.sampling import DrawLoader, DrawSampler, SamplingOptions
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


class _MicroBatches(Dataset[TokenBatch]):
    def __init__(self, batches: Sequence[TokenBatch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> TokenBatch:
        return self._batches[index]


class RetrievalData(LightningDataModule):
    """Reads, splits and batches.

    Args:
        options: where the data is and how it is prepared.
        sampling: how training batches are drawn.
        tokenize: the model's tokenizer; the command line takes it from the model.
    """

    def __init__(
        self,
        options: DataOptions = DataOptions(),
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen)
        tokenize: Any = None,
    ) -> None:
        super().__init__()
        self.options = options
        self.sampling = sampling
        self.tokenize: Tokenize = tokenize
        self.train_records: list[Record] = []
        self._train_loader: DrawLoader | None = None
        self._train_state: dict[str, Any] | None = None
        self.reports: list[str] = []
        self.validation_set: RetrievalSet | None = None
        self.test_set: RetrievalSet | None = None
        self.predict_texts: list[str] = []

    def setup(self, stage: str) -> None:
        """Reads what the stage needs.

        Raises:
            UserError: a part that the stage needs is not given, or cannot be read.
        """
        _check(self.options)
        if stage in ("fit", "validate") and self.validation_set is None:
            self._read_training()
            if stage == "validate" and self.validation_set is None:
                _required(None, "validation")
        elif stage == "test" and self.test_set is None:
            self.test_set = read_beir(resolve_data(_required(self.options.test, "test")))
        elif stage == "predict" and not self.predict_texts:
            self.predict_texts = _read_texts(resolve_data(_required(self.options.predict, "predict")))

    def _read_training(self) -> None:
        if not self.options.train and self.options.validation is None:
            _required(None, "train")
        records: list[Record] = []
        for source in self.options.train:
            found, report = read_records(
                resolve_source(source), format=self.options.format, skip_invalid=self.options.skip_invalid
            )
            records += found
            _check_ids(records, source)
            self.reports.append(str(report))
            log.info(str(report))
        if self.options.parallel_positives:
            records = add_parallel_positives(records)
        if self.options.validation is not None:
            self.train_records = records
            self.validation_set = self._read_validation(self.options.validation)
        else:
            self.train_records, validation = split_by_group(
                records, self.options.validation_share, self.options.seed
            )
            self.validation_set = to_retrieval_set(validation, "validation") if validation else None
            if not validation and self.options.validation_share > 0:
                log.warning("no group falls into the validation share: this run is not validated")
        if records:
            self._check_learns()

    def _read_validation(self, source: str) -> RetrievalSet:
        path = resolve_data(source)
        if path.is_dir():
            return read_beir(path)
        records, _ = read_records(path, format=self.options.format, skip_invalid=self.options.skip_invalid)
        return to_retrieval_set(add_parallel_positives(records), "validation")

    def _check_learns(self) -> None:
        """A batch of one query without negatives has loss 0 and learns nothing, without a word."""
        if not self.train_records:
            raise UserError(
                "no training records are left after the split; lower data.options.validation_share"
            )
        alone = min(self.sampling.batch_size, len(self.train_records)) == 1
        if alone and (self.sampling.negatives == 0 or not any(r.negatives for r in self.train_records)):
            raise UserError(
                "one query per batch and no hard negatives: the loss is 0 and nothing is learnt; raise "
                "data.sampling.batch_size or mine negatives first"
            )

    def train_dataloader(self) -> DrawLoader:
        """Batches of `RetrievalBatch`; its state resumes in the middle of an epoch."""
        sampler = DrawSampler(self.train_records, self.sampling)
        if sampler.left_out:
            log.info(
                "%d of %d records fill no batch of %d in each epoch (others each time)",
                sampler.left_out, len(self.train_records), self.sampling.batch_size,
            )  # fmt: skip
        collate = RetrievalCollator(
            self.tokenize, self.options.token_budget, self.options.training_document_length
        )
        self._train_loader = DrawLoader(sampler, collate, self.options.workers)
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Where training is in its data; the Trainer itself restores the loader too late, or not at all."""
        return {} if self._train_loader is None else {"train": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets the next training loader go on where the state was taken."""
        self._train_state = state_dict.get("train")

    def val_dataloader(self) -> list[DataLoader]:
        """Micro-batches of the validation set's queries, then of its documents."""
        return [] if self.validation_set is None else self._set_loaders(self.validation_set)

    def test_dataloader(self) -> list[DataLoader]:
        """Micro-batches of the test set's queries, then of its documents."""
        if self.test_set is None:
            raise RuntimeError("setup('test') comes first")
        return self._set_loaders(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """Micro-batches of the texts to embed."""
        return self._loader(self.predict_texts, self.options.predict_role)

    def _set_loaders(self, retrieval_set: RetrievalSet) -> list[DataLoader]:
        return [
            self._loader([query.text for query in retrieval_set.queries], "query"),
            self._loader([document.text for document in retrieval_set.corpus], "document"),
        ]

    def _loader(self, texts: Sequence[str], role: Any) -> DataLoader[TokenBatch]:
        batches = make_micro_batches(
            self.tokenize(texts, role), self.tokenize.pad_id, self.options.token_budget
        )
        return DataLoader(_MicroBatches(batches), batch_size=None)

    def card(self) -> dict[str, Any]:
        """What the model is trained on: counts for the model card and the report."""
        records = self.train_records
        return {
            "sources": list(self.options.train),
            "records": len(records),
            "languages": _counts(record.language for record in records),
            "tasks": _counts(record.task for record in records),
            "with_negatives": sum(bool(record.negatives) for record in records),
            "validation_queries": len(self.validation_set.queries) if self.validation_set else 0,
            "reports": self.reports,
        }


def _check(options: DataOptions) -> None:
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


def resolve_source(source: str) -> str | Path:
    """A training source: a hub data set stays a name, everything else becomes a path."""
    return source if source.startswith("hf:") else resolve_data(source)


def _required(value: str | None, name: str) -> str:
    if value is None:
        raise UserError(
            f"data.options.{name} is not set; give it in the config or with --data.options.{name}"
        )
    return value


def _read_texts(path: Path) -> list[str]:
    texts = []
    for line, row in read_rows(path):
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{path}:{line}: field 'text' is missing or blank; every row needs a text to embed"
            )
        texts.append(text)
    return texts


def _counts(values: Any) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())
