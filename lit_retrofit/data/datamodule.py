"""The Lightning data module: records to training batches, validation, test and prediction texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from lit_retrofit.data.batching import RetrievalCollator, TokenBatch, Tokenize, make_micro_batches
from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.records import Record, RetrievalSet
from lit_retrofit.data.sampling import DrawLoader, DrawSampler, SamplingOptions
from lit_retrofit.data.sources import DataOptions, check_options, read_texts, read_training_data, required
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

log = logging.getLogger(__name__)


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
        options: DataOptions = DataOptions(),  # noqa: B008 (frozen)
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
        check_options(self.options)
        if stage in ("fit", "validate") and self.validation_set is None:
            self._read_training()
            if stage == "validate" and self.validation_set is None:
                required(None, "validation")
        elif stage == "test" and self.test_set is None:
            self.test_set = read_beir(resolve_data(required(self.options.test, "test")))
        elif stage == "predict" and not self.predict_texts:
            self.predict_texts = read_texts(resolve_data(required(self.options.predict, "predict")))

    def _read_training(self) -> None:
        data = read_training_data(self.options)
        self.train_records, self.validation_set = data.records, data.validation
        self.reports = data.reports
        if data.records:
            self._check_learns()

    def _check_learns(self) -> None:
        """A batch of one query without negatives has loss 0 and learns nothing, without a word."""
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


def _counts(values: Any) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())
