"""The hardest negatives of a step, as texts for the user to read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from retrofit_kernels import NeighbourOptions
from torch import Tensor

from lit_retrofit.data.batching import RetrievalBatch
from lit_retrofit.errors import UserError
from lit_retrofit.retrieval.search import search
from lit_retrofit.training.callbacks.wandb_tables import log_rows
from lit_retrofit.training.callbacks.whole_steps import ended_a_step


@dataclass(frozen=True, slots=True)
class HardNegative:
    """A query whose nearest negative in its step lies closest to its positive, or beyond it.

    Attributes:
        step: optimizer steps taken before.
        query: as the model reads it, prompt included.
        positive: likewise, cut to the length of training documents.
        negative: likewise.
        positive_similarity: cosine of query and positive.
        negative_similarity: cosine of query and negative.
        language: of the query, where known.
        record_id: names the record in the data.
    """

    step: int
    query: str
    positive: str
    negative: str
    positive_similarity: float
    negative_similarity: float
    language: str | None
    record_id: str


class HardestNegatives(Callback):
    """Every few steps, shows the queries whose nearest in-batch negative rivals their positive.

    Many that answer their query as well as the positive does mean false negatives in the data. They are
    added to ``hardest.jsonl`` in the run folder, and logged as a Weights & Biases table where that logger
    is on. With several ranks it is the first one's queries and documents.

    Args:
        every_n_steps: optimizer steps between two looks.
        queries: how many are shown.
    """

    FILE = "hardest.jsonl"

    def __init__(self, every_n_steps: int = 100, queries: int = 16) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("queries", queries)):
            if value < 1:
                raise UserError(f"{name} of HardestNegatives is {value}; it must be at least 1")
        self.every_n_steps = every_n_steps
        self.queries = queries

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that goes on keeps the lines before its checkpoint, but for what a kill has cut short."""
        path = Path(trainer.default_root_dir) / self.FILE
        if trainer.is_global_zero and path.is_file():
            # As bytes: texts may hold what `str.splitlines` takes for a line's end, and half characters.
            lines = path.read_bytes().split(b"\n")
            kept = [line + b"\n" for line in lines if _step_of(line) < trainer.global_step]
            path.write_bytes(b"".join(kept))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        """Looks, if it is time: at the first step and then every ``every_n_steps``."""
        step = trainer.global_step - 1
        looks = trainer.is_global_zero and ended_a_step(trainer, batch_idx)
        if not looks or step % self.every_n_steps:
            return
        held: Any = pl_module.step_embeddings
        # With several ranks the others' documents may follow; their texts are not here.
        documents = held.documents[: len(batch.document_rows)]
        found = self._hardest(trainer, pl_module, batch, held.queries, documents, step)
        path = Path(trainer.default_root_dir) / self.FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in found)
        log_rows(trainer, "train/hardest_negatives", [asdict(item) for item in found])

    def _hardest(
        self,
        trainer: Trainer,
        module: Any,
        batch: RetrievalBatch,
        queries: Tensor,
        documents: Tensor,
        step: int,
    ) -> list[HardNegative]:
        rows, columns, positives, negatives = hardest_negatives(queries, documents, batch, self.queries)
        positive_rows = batch.document_rows[batch.positives[rows]].tolist()
        negative_rows = batch.document_rows[columns].tolist()
        query_rows = batch.query_rows[rows].tolist()
        texts = _texts(batch, {*positive_rows, *negative_rows, *query_rows}, module.tokenizer)
        ids = [batch.record_ids[row] for row in rows.tolist()]
        languages = _languages(trainer, set(ids))
        table = zip(query_rows, positive_rows, negative_rows, positives, negatives, ids, strict=True)
        return [
            HardNegative(
                step, texts[query], texts[positive], texts[negative], round(float(p), 4), round(float(n), 4),
                languages.get(record_id), record_id,
            )
            for query, positive, negative, p, n, record_id in table
        ]  # fmt: skip


def _step_of(line: bytes) -> float:
    """Of a line of the file; infinite where it is not a whole one."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def hardest_negatives(
    queries: Tensor, documents: Tensor, batch: RetrievalBatch, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The queries whose nearest negative lies furthest above (or least below) their positive.

    Args:
        queries: (Q, D), normalised.
        documents: (N, D) likewise.
        batch: which documents answer which query, and whose negatives they are.
        count: at most so many queries.

    Returns:
        The queries' rows, hardest first, their negatives' columns among the documents, the similarities
        of the positives and of the negatives; (count or fewer,) each.
    """
    queries, documents = queries.float(), documents.float()
    columns = torch.arange(len(documents), device=documents.device)
    # The search pads what it excludes as the batch does, with -1.
    options = NeighbourOptions(
        query_ids=batch.known_positives, corpus_ids=columns,
        query_groups=batch.query_groups, corpus_groups=batch.document_groups,
    )  # fmt: skip
    nearest = search(queries, documents, 1, options=options)
    positives = (queries * documents[batch.positives]).sum(dim=1)
    scores, indices = nearest.scores[:, 0], nearest.indices[:, 0]
    order = (scores - positives).argsort(descending=True, stable=True)[:count]
    order = order[indices[order] >= 0]
    return order, indices[order], positives[order], scores[order]


def _texts(batch: RetrievalBatch, rows: set[int], tokenizer: Any) -> dict[int, str]:
    texts = {}
    for part in batch.micro_batches:
        backend = tokenizer.of(part.role or "query").backend
        for at, row in enumerate(part.rows.tolist()):
            if row in rows:
                ids = part.input_ids[at][part.attention_mask[at].bool()]
                texts[row] = backend.decode(ids.tolist(), skip_special_tokens=True)
    return texts


def _languages(trainer: Trainer, ids: set[str]) -> dict[str, str | None]:
    """Batches do not carry languages; sources that are streamed cannot be asked."""
    records = getattr(trainer.datamodule, "train_records", ())  # type: ignore[attr-defined]
    return {record.id: record.language for record in records if record.id in ids}
