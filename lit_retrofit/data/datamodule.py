"""The Lightning data module: records to training batches, validation, test and prediction texts."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from lit_retrofit.data.batching import Tokenize, make_micro_batches
from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.collating import RetrievalCollator
from lit_retrofit.data.loader import DrawLoader, MicroBatchLoader
from lit_retrofit.data.mixture import Loaded, Mixture
from lit_retrofit.data.options import (
    DataOptions,
    SamplingOptions,
    SourceOptions,
    check_options,
    check_sampling,
)
from lit_retrofit.data.records import Record, RetrievalSet
from lit_retrofit.data.sampling import negatives_of
from lit_retrofit.data.sources import read_texts, read_training_data, required
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.data.teacher import Teacher
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

log = logging.getLogger(__name__)


class RetrievalData(LightningDataModule):
    """Reads, splits and batches.

    Args:
        options: where the data is and how it is prepared.
        sampling: how training batches are drawn.
        tokenize: the model's tokenizer; the command line takes it from the model.
    """

    def __init__(
        self,
        options: DataOptions = DataOptions(),  # noqa: B008 (frozen)
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen)
        tokenize: Any = None,
    ) -> None:
        super().__init__()
        self.options = options
        self.sampling = sampling
        self.tokenize: Tokenize = tokenize
        self.sources: tuple[Loaded, ...] = ()
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
        check_options(self.options)
        check_sampling(self.sampling, self.options.sources)
        if stage in ("fit", "validate") and self.validation_set is None:
            self._read_training()
            if stage == "validate" and self.validation_set is None:
                required(None, "validation")
        elif stage == "test" and self.test_set is None:
            self.test_set = read_beir(resolve_data(required(self.options.test, "test")))
        elif stage == "predict" and not self.predict_texts:
            self.predict_texts = read_texts(resolve_data(required(self.options.predict, "predict")))

    @property
    def train_records(self) -> tuple[Record, ...]:
        """The training records that are in memory, of all sources; `replace_records` changes them."""
        return tuple(record for part in self._held() for record in part)

    def _held(self) -> list[list[Record]]:
        return [part for _, part in self.sources if not isinstance(part, TableStream)]

    def replace_records(self, records: Sequence[Record]) -> None:
        """Puts others (with negatives mined anew) in the place of `train_records`.

        The training loader draws them from its next batch on.

        Args:
            records: as many as before, with the same ids in the same order: positions stay what they were.

        Raises:
            ValueError: they are other records.
        """
        if [record.id for record in records] != [record.id for record in self.train_records]:
            raise ValueError("replace_records takes the records that there are, in their order")
        rest = iter(records)
        for part in self._held():
            part[:] = islice(rest, len(part))
        if self._train_loader is not None:
            self._train_loader.renew()

    def _read_training(self) -> None:
        data = read_training_data(self.options)
        self.sources, self.validation_set = data.sources, data.validation
        self.reports = data.reports
        for source, part in self.sources:
            self._check_learns(source, part)

    def _check_learns(self, source: SourceOptions, records: Sequence[Record] | TableStream) -> None:
        """A query with nothing to be told apart from has loss 0 and learns nothing, without a word.

        Which records of a stream have negatives is not known before: they are taken to have them.
        """
        if negatives_of(source, self.sampling) == 0:
            without = len(records)
        elif isinstance(records, TableStream):
            without = 0
        else:
            without = sum(not record.negatives for record in records)
        alone = min(self.sampling.batch_size, sum(len(part) for _, part in self.sources)) == 1
        if alone and without == len(records):
            raise UserError(
                "one query per batch and no hard negatives: the loss is 0 and nothing is learnt; raise "
                "data.sampling.batch_size or mine negatives first"
            )
        if not source.private or not without:
            return
        if without == len(records):
            raise UserError(
                f"source '{source.label}' has neither in-batch nor hard negatives: its loss is 0 and nothing "
                "is learnt; turn in_batch_negatives on, give its records negatives, or draw more than 0"
            )
        log.warning(
            "source '%s': %d of %d records have no hard negatives, and in-batch negatives are off: nothing "
            "is learnt from them", source.label, without, len(records),
        )  # fmt: skip

    @property
    def _scored(self) -> bool:
        """Whether a record has a teacher's or miner's scores; of a streamed source it is not known before."""
        streamed = any(isinstance(part, TableStream) for _, part in self.sources)
        return streamed or any(r.positive_scores or r.negative_scores for r in self.train_records)

    @property
    def _devices(self) -> tuple[int, int]:
        """How many devices there are and which this is; one where there is no trainer."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _batches_taken(self) -> float:
        """Batches of an epoch that the trainer takes; known once it has asked for the loader's length."""
        return math.inf if self.trainer is None else self.trainer.num_training_batches

    def train_dataloader(self) -> DrawLoader:
        """Batches of `RetrievalBatch`, this device's part; its state resumes in the middle of an epoch.

        Raises:
            UserError: batches cannot be drawn as asked, or a loaded state is of other data or options.
        """
        devices, device = self._devices
        mixture = Mixture(self.sources, self.sampling, devices, device)
        if mixture.left_out and device == 0:
            log.info(
                "%d of %d records fill no batch of %d in each epoch (others each time)",
                mixture.left_out, mixture.records, mixture.shape.batch_size,
            )  # fmt: skip
        teacher = None if self.options.teacher is None else Teacher(Path(self.options.teacher))
        collate = RetrievalCollator(
            self.tokenize,
            self.options.token_budget,
            self.options.training_document_length,
            self.sampling.negatives_within,
            any(source.private for source in mixture.sources),
            teacher,
            self._scored,
        )
        self._train_loader = DrawLoader(
            mixture, collate, self.options.workers, report=device == 0, taken=self._batches_taken
        )
        if self._train_state is not None:
            self._train_loader.load_state_dict(self._train_state)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """Where training is in its data; the Trainer itself restores the loader too late, or not at all."""
        return {} if self._train_loader is None else {"train": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets the next training loader go on where the state was taken."""
        self._train_state = state_dict.get("train")

    def val_dataloader(self) -> list[MicroBatchLoader]:
        """This device's micro-batches of the validation set's queries, then of its documents."""
        return [] if self.validation_set is None else self._set_loaders(self.validation_set)

    def test_dataloader(self) -> list[MicroBatchLoader]:
        """This device's micro-batches of the test set's queries, then of its documents."""
        if self.test_set is None:
            raise RuntimeError("setup('test') comes first")
        return self._set_loaders(self.test_set)

    def predict_dataloader(self) -> MicroBatchLoader:
        """This device's micro-batches of the texts to embed."""
        return self._loader(self.predict_texts, self.options.predict_role)

    def _set_loaders(self, retrieval_set: RetrievalSet) -> list[MicroBatchLoader]:
        return [
            self._loader([query.text for query in retrieval_set.queries], "query"),
            self._loader([document.text for document in retrieval_set.corpus], "document"),
        ]

    def _loader(self, texts: Sequence[str], role: Any) -> MicroBatchLoader:
        pad_id = self.tokenize.of(role).pad_id
        batches = make_micro_batches(self.tokenize(texts, role), pad_id, self.options.token_budget, role)
        return MicroBatchLoader(batches, *self._devices)

    def card(self) -> dict[str, Any]:
        """What the model is trained on: counts for the model card and the report.

        Languages, tasks and negatives are of the records in memory.
        """
        records = self.train_records
        streamed = {s.label: len(part) for s, part in self.sources if isinstance(part, TableStream)}
        skipped = {} if self._train_loader is None else dict(self._train_loader.skipped)
        return {
            "sources": [source.label for source in self.options.sources],
            "records": len(records) + sum(streamed.values()),
            "streamed": streamed,
            "skipped_while_streaming": skipped,
            "languages": _counts(record.language for record in records),
            "tasks": _counts(record.task for record in records),
            "with_negatives": sum(bool(record.negatives) for record in records),
            "validation_queries": len(self.validation_set.queries) if self.validation_set else 0,
            "reports": self.reports,
        }


def _counts(values: Any) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())
