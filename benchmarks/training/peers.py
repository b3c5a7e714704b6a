"""One training step of each implementation: texts in, updated weights out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training.backbones import cut, gradients_of, padded, set_adapters, trained
from lit_retrofit.data.batching import RetrievalBatch, TokenBatch
from lit_retrofit.data.collating import RetrievalCollator
from lit_retrofit.data.records import Record
from lit_retrofit.data.sampling import Draw
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.kept_weights import KeptWeights
from lit_retrofit.model.lora import LoraOptions, find_targets
from lit_retrofit.model.source import resolve_model
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.graph_budget import GraphBudget
from lit_retrofit.training.objective import Objective, ObjectiveOptions, StepEmbeddings

MINI_BATCH = 32
"""Default `mini_batch_size` of sentence-transformers' cached losses."""
TEMPERATURE, LEARNING_RATE = 0.02, 1e-4
LORA = LoraOptions(r=16, alpha=32)


@dataclass(frozen=True)
class Settings:
    """What all implementations share.

    Attributes:
        model: a name or folder.
        max_length: tokens of a text.
        layers: keep only this many of the encoder's lowest blocks, or None for all.
        token_budget: padded tokens of our micro-batches.
        graph_memory: gigabytes of graphs that ours may keep; None for the engine's own choice.
        threads: of the CPU.
        half: compute in bf16 (autocast; weights stay in float32).
    """

    model: str
    max_length: int
    layers: int | None
    token_budget: int
    graph_memory: float | None
    threads: int
    half: bool = False

    def autocast(self) -> torch.autocast:
        """Of the encoder; losses are computed in float32."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)


class Step(ABC):
    """A model with its optimizer; `run` is one training step.

    Attributes:
        losses: of the steps so far.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.losses: list[float] = []
        self.optimizer: torch.optim.Optimizer

    @abstractmethod
    def backward(self, records: list[Record]) -> float:
        """Gradients of one batch; returns the loss."""

    def run(self, records: list[Record]) -> float:
        """Seconds of a whole step, tokenization and update included."""
        begin = time.perf_counter()
        self.losses.append(self.backward(records))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - begin

    @abstractmethod
    def gradients(self) -> dict[str, Tensor]:
        """By name within the transformer blocks."""


class Ours(Step):
    """lit-retrofit's engine. With `graph_memory` 0 nothing is kept: gradient caching."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        length = settings.max_length
        options = EncoderOptions(
            settings.model, query_max_length=length, document_max_length=length, dropout=0.0, lora=LORA
        )
        self.encoder = build_encoder(options)
        cut(self.encoder.backbone.get_base_model(), settings.layers)
        set_adapters(self.encoder.backbone.get_base_model())
        self.objective = Objective(ObjectiveOptions(TEMPERATURE), self.encoder.dimension)
        self.budget = GraphBudget(settings.graph_memory)
        self.collate = RetrievalCollator(self.encoder.tokenizer, settings.token_budget)
        self.optimizer = torch.optim.AdamW(trained(self.encoder), lr=LEARNING_RATE)
        self.shares: dict[str, float] = {}

    def embed(self, batch: TokenBatch) -> Tensor:
        """One micro-batch."""
        with self.settings.autocast():
            return self.encoder(batch.input_ids, batch.attention_mask)

    def batch(self, records: list[Record]) -> RetrievalBatch:
        """Tokens in micro-batches."""
        return self.collate([Draw(record, record.positives[0], ()) for record in records])

    def loss(self, leaf: Tensor, batch: RetrievalBatch) -> Tensor:
        """Of all embeddings of a step."""
        queries, documents = leaf[batch.query_rows], leaf[batch.document_rows]
        step = StepEmbeddings(queries, documents, batch.positives, batch.known_positives)
        return self.objective(step).loss

    def backward(self, records: list[Record]) -> float:
        """As in the LightningModule."""
        batch = self.batch(records)
        cached = CachedEmbeddings(
            self.embed,
            batch.micro_batches,
            batch.texts,
            self.budget,
            self.encoder.parameters(),
            cheap={None: self.encoder.cheap},
        )
        self.shares = {
            "padding": 1 - batch.tokens / batch.padded_tokens,
            "recomputed": cached.recomputed_tokens / batch.padded_tokens,
            "tokens": batch.tokens,
        }
        loss = self.loss(cached.leaf, batch)
        loss.backward()
        cached.backward()
        return loss.item()

    def parts(self, records: list[Record]) -> dict[str, float]:
        """Seconds of encoder and loss alone, without the engine, with as many recomputed texts as `run`."""
        batch = self.batch(records)
        recomputed = self.shares["recomputed"] * batch.padded_tokens
        spent = {"encoder": 0.0, "loss": 0.0}
        leaf = torch.zeros(batch.texts, self.encoder.dimension)
        begin = time.perf_counter()
        with KeptWeights().in_use():  # as in a step
            for part in reversed(batch.micro_batches):
                if recomputed > 0:
                    recomputed -= part.input_ids.numel()
                    with torch.no_grad():
                        self.embed(part)
                embeddings = self.embed(part)
                leaf[part.rows] = embeddings.detach()
                embeddings.backward(torch.full_like(embeddings, 1e-6))
        spent["encoder"] = time.perf_counter() - begin
        leaf.requires_grad_()
        begin = time.perf_counter()
        self.loss(leaf, batch).backward()
        spent["loss"] = time.perf_counter() - begin
        self.optimizer.zero_grad()
        return spent

    def gradients(self) -> dict[str, Tensor]:
        """By name within the transformer blocks."""
        return gradients_of(self.encoder.backbone.get_base_model())


class GradCache(Ours):
    """Its scheme: micro-batches of 32 texts in the order they come, all of them embedded twice."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.budget = GraphBudget(0.0)

    def batch(self, records: list[Record]) -> RetrievalBatch:
        """Queries, then documents; padded to the longest of each 32."""
        batch = super().batch(records)
        ids, mask = padded(batch, self.encoder.tokenizer.pad_id)
        parts = []
        for rows in torch.arange(batch.texts).split(MINI_BATCH):
            width = int(mask[rows].sum(1).max())
            parts.append(TokenBatch(ids[rows, :width], mask[rows, :width], rows))
        batch.micro_batches = tuple(parts)
        return batch


class SentenceTransformers(Step):
    """Its losses on its own model class.

    Args:
        settings: shared by all.
        cached: CachedMultipleNegativesRankingLoss at its default mini-batch, or the plain loss.
    """

    def __init__(self, settings: Settings, cached: bool) -> None:
        super().__init__(settings)
        from peft import LoraConfig
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import losses

        self.model = SentenceTransformer(resolve_model(settings.model), device="cpu")
        self.model.max_seq_length = settings.max_length
        backbone = self.model[0].auto_model
        for module in backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        cut(backbone, settings.layers)
        self.model.add_adapter(
            LoraConfig(r=LORA.r, lora_alpha=LORA.alpha, target_modules=find_targets(backbone))
        )
        set_adapters(backbone)
        self.model.train()
        self.model.forward = self._in_precision(self.model.forward)
        name = "CachedMultipleNegativesRankingLoss" if cached else "MultipleNegativesRankingLoss"
        self.loss = getattr(losses, name)(self.model, scale=1 / TEMPERATURE)
        self.optimizer = torch.optim.AdamW(trained(self.model), lr=LEARNING_RATE)

    def _in_precision(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """As accelerate wraps a model: the second pass of the cached loss is in 16 bits, too."""

        def autocast(*args: Any, **kwargs: Any) -> Any:
            with self.settings.autocast():
                features = forward(*args, **kwargs)
            return features | {"sentence_embedding": features["sentence_embedding"].float()}

        return autocast if self.settings.half else forward

    def backward(self, records: list[Record]) -> float:
        """As its trainer does it: a column of texts at a time."""
        columns = (
            ["query: " + record.query for record in records],
            ["passage: " + record.positives[0].text for record in records],
        )
        loss = self.loss([self.model.preprocess(column) for column in columns], None)
        loss.backward()
        return loss.item()

    def gradients(self) -> dict[str, Tensor]:
        """By name within the transformer blocks."""
        return gradients_of(self.model[0].auto_model)


class Plain(Ours):
    """One graph over the whole batch, padded to its longest text, dense logits: what gradients must be."""

    def backward(self, records: list[Record]) -> float:
        """Without engine, packing and strips."""
        batch = self.batch(records)
        ids, mask = padded(batch, self.encoder.tokenizer.pad_id)
        hidden = self.encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        means = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
        embeddings = nn.functional.normalize(means, dim=1)
        logits = embeddings[batch.query_rows] @ embeddings[batch.document_rows].T / TEMPERATURE
        loss = nn.functional.cross_entropy(logits, batch.positives)
        loss.backward()
        return loss.item()


PEERS: dict[str, tuple[str, Callable[[Settings], Step]]] = {
    "ours": ("lit-retrofit", Ours),
    "grad_cache": ("GradCache's scheme on our encoder", GradCache),
    "sentence_transformers_cached": (
        "sentence-transformers, cached loss",
        lambda settings: SentenceTransformers(settings, cached=True),
    ),
    "sentence_transformers_plain": (
        "sentence-transformers, plain loss",
        lambda settings: SentenceTransformers(settings, cached=False),
    ),
    "plain": ("one graph over the whole batch", Plain),
}
