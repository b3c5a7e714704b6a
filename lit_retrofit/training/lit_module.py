"""The LightningModule: one cached contrastive step, embeddings for validation, test and prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, cast

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, Timer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_retrofit.data.batching import RetrievalBatch, Role, TokenBatch
from lit_retrofit.errors import UserError
from lit_retrofit.model.dual import DualEncoder, DualTokenizer, Encoders
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.loading import CHECKPOINT_KEYS, own_options
from lit_retrofit.model.tokenizer import RoleTokenizer
from lit_retrofit.training.callbacks import RetrievalValidation, StepMonitor
from lit_retrofit.training.faults import check_same_encoder
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.graph_budget import GraphBudget
from lit_retrofit.training.objective import Objective, ObjectiveOptions, ObjectiveOutput, StepEmbeddings
from lit_retrofit.training.optimizer import (
    OptimizerOptions,
    apply_options,
    build_optimizer,
    build_schedule,
    check_options,
)
from lit_retrofit.training.resuming import begin_epoch, place_loops
from lit_retrofit.training.sharded_strategy import ShardedStrategy
from lit_retrofit.training.sharding import clip_by_norm
from lit_retrofit.training.step_loss import StepLoss
from lit_retrofit.training.strategy import NAME as STRATEGY
from lit_retrofit.training.strategy import OneSyncStrategy


class Retriever(LightningModule):
    """Trains an encoder as a retriever.

    The step's texts are embedded in micro-batches, the loss is taken over all of them at once, and
    the gradient is sent back micro-batch by micro-batch. Everything else (precision, clipping,
    accumulation, checkpoints) is the Trainer's.

    Args:
        encoder: the model and how it embeds.
        objective: the loss.
        optimizer: AdamW and its schedule.
        graph_memory: gigabytes of memory in which a step may keep the graphs of its micro-batches, on each
            device; unset or auto, a share of what is free at the first step. Micro-batches beyond it are
            embedded twice: less memory, more time, the same gradient. 0 keeps none.
        document_encoder: another model that embeds the documents; unset, `encoder` embeds them too.
    """

    def __init__(
        self,
        encoder: EncoderOptions = EncoderOptions(),  # noqa: B008 (frozen)
        objective: ObjectiveOptions = ObjectiveOptions(),  # noqa: B008 (frozen)
        optimizer: OptimizerOptions = OptimizerOptions(),  # noqa: B008 (frozen)
        graph_memory: float | Literal["auto"] | None = None,
        document_encoder: EncoderOptions | None = None,
    ) -> None:
        super().__init__()
        check_options(optimizer)
        if isinstance(graph_memory, str):
            graph_memory = None
        if graph_memory is not None and not graph_memory >= 0:
            raise UserError(f"model.graph_memory is {graph_memory} GB; 0 keeps no graph, more keeps some")
        self.options = {
            "objective": asdict(objective),
            "optimizer": asdict(optimizer),
            "graph_memory": graph_memory,
        }
        first = self.make_encoder(encoder)
        self.encoder: Encoders = first
        if document_encoder is not None:
            self.encoder = DualEncoder(first, self.make_encoder(document_encoder))
        # By role; None stands for texts of both where one encoder does for both.
        self._by_role: dict[Role | None, Encoder] = (
            {"query": self.encoder.query, "document": self.encoder.document}
            if isinstance(self.encoder, DualEncoder)
            else dict.fromkeys((None, "query", "document"), first)
        )
        self._frozen = {role for role, part in self._by_role.items() if not part.learns}
        if self._frozen == self._by_role.keys():
            raise UserError("model.encoder.freeze: nothing is left to train; freeze none, or one of two")
        self.objective = Objective(objective, self.encoder.dimension)
        self.optimizer_options = optimizer
        self.graph_budget = GraphBudget(graph_memory)
        self.strict_loading = False  # checkpoints hold the trained weights only
        self._cached: CachedEmbeddings | None = None
        self._loss: StepLoss | None = None
        self._sizes = (0, 1)  # of the step: queries, padded tokens
        self.step_embeddings: StepEmbeddings | None = None

    @staticmethod
    def make_encoder(options: EncoderOptions) -> Encoder:
        """Loads the encoder; a plan makes one without weights instead."""
        return build_encoder(options)

    @property
    def tokenizer(self) -> RoleTokenizer | DualTokenizer:
        """Turns texts into this model's tokens."""
        return self.encoder.tokenizer

    def setup(self, stage: str) -> None:
        """Refuses what the step does not do yet, rather than computing something else.

        Raises:
            UserError: several processes under another strategy, or weights kept in half precision.
        """
        if stage == "fit" and self.trainer.precision in ("bf16-true", "16-true"):
            mixed = str(self.trainer.precision).replace("true", "mixed")
            raise UserError(
                f"precision {self.trainer.precision} keeps the weights in half precision, where small "
                f"updates vanish; set --trainer.precision {mixed}"
            )
        if isinstance(self.trainer.strategy, ShardedStrategy):
            self.trainer.strategy.check(self)
        if self.trainer.world_size > 1 and not isinstance(
            self.trainer.strategy, OneSyncStrategy | ShardedStrategy
        ):
            raise UserError(
                f"{self.trainer.world_size} processes with {type(self.trainer.strategy).__name__}, which "
                f"would send gradients before they are complete; set --trainer.strategy {STRATEGY}, or stack "
                "--config configs/trainer/ddp.yaml"
            )

    def configure_model(self) -> None:
        """Splits the weights over the devices, where the strategy does that."""
        if isinstance(self.trainer.strategy, ShardedStrategy):
            self.trainer.strategy.split(self)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Retrieval measures on the validation and test sets, and the step's figures."""
        return [RetrievalValidation(), StepMonitor()]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what a step logs."""
        of_loss = (f"train/{name}" for name in self.objective.figures)
        return ("train/loss", "train/recomputed_share", *of_loss)

    def training_step(self, batch: RetrievalBatch, batch_index: int) -> Tensor:
        """The loss over all of the step's queries and documents; `backward` does the rest."""
        cached = CachedEmbeddings(
            self._embed,
            batch.micro_batches,
            batch.texts,
            self.graph_budget,
            self.encoder.parameters(),
            {role: part.frozen for role, part in self._by_role.items() if part.frozen is not None},
            {role: part.cheap for role, part in self._by_role.items() if part.cheap is not None},
            self._frozen,
        )
        loss = StepLoss(cached, lambda: self._judge(cached.leaf, batch), self.objective.parameters())
        self._cached, self._loss = cached, loss
        size = len(batch.positives)
        self.log("train/loss", loss.value.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": value for name, value in loss.figures.items()}, batch_size=size)
        self._sizes = size, batch.padded_tokens
        return loss.value

    def _judge(self, embeddings: Tensor, batch: RetrievalBatch) -> ObjectiveOutput:
        """The loss of a step's embeddings, which callbacks may then look at."""
        compared = _compared(embeddings, batch)
        self.step_embeddings = replace(
            compared, queries=compared.queries.detach(), documents=compared.documents.detach()
        )
        return self.objective(compared)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradient of the loss into the embeddings, then from there through the encoder.

        The Trainer calls this with the loss already scaled (fp16) and divided (accumulation), so both
        reach the weights through the cached gradient.
        """
        loss.backward()
        if self._cached is None or self._loss is None:
            raise RuntimeError("backward without a training_step")
        self._loss.backward()
        strategy = self.trainer.strategy
        self._cached.backward(
            context=self.trainer.precision_plugin.train_step_context,
            before_last=strategy.before_last_backward if isinstance(strategy, ShardedStrategy) else None,
        )
        # Where memory ran out meanwhile, more was embedded a second time than was planned.
        size, padded_tokens = self._sizes
        self.log("train/recomputed_share", self._cached.recomputed_tokens / padded_tokens, batch_size=size)
        self._cached = self._loss = None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm of the whole gradient, also where devices hold parts of it."""
        if not isinstance(self.trainer.strategy, ShardedStrategy):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_by_norm((p.grad for p in self.parameters() if p.grad is not None), gradient_clip_val)

    def computed_tokens(self, batch: RetrievalBatch) -> int:
        """Tokens that a pass over the step's texts computes; where texts cannot be packed, padding too."""
        return sum(
            int(part.attention_mask.sum()) if self._packs(part) else part.input_ids.numel()
            for part in batch.micro_batches
        )

    def _packs(self, batch: TokenBatch) -> bool:
        encoder = self._by_role[batch.role]
        return encoder.states.packs(encoder.backbone, self.device)

    def _embed(self, batch: TokenBatch) -> Tensor:
        return self._by_role[batch.role](batch.input_ids, batch.attention_mask)

    def validation_step(self, batch: TokenBatch, batch_index: int, dataloader_idx: int = 0) -> Tensor:
        """Embeddings of one micro-batch; the callback collects and measures them."""
        return self._embed(batch)

    test_step = validation_step
    predict_step = validation_step

    def configure_optimizers(self) -> Any:
        """AdamW, its schedule stepped once per optimizer step."""
        optimizer = build_optimizer(self.parameters(), self.optimizer_options)
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            if not any(isinstance(c, (Timer, EarlyStopping)) for c in self.trainer.callbacks):  # type: ignore[attr-defined]
                raise UserError("the run has no end; set --trainer.max_epochs or --trainer.max_steps")
            if self.optimizer_options.follows_the_steps:
                raise UserError(
                    "the learning rate follows the run's number of steps, which is not known; set "
                    "--trainer.max_epochs or --trainer.max_steps, or --model.optimizer.schedule constant "
                    "with --model.optimizer.warmup 0"
                )
            steps = 0
        schedule = build_schedule(optimizer, self.optimizer_options, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """What the configuration says of rate and decay holds, whatever a checkpoint brought.

        Training begins where the checkpoint's data does.
        """
        self.graph_budget.processes = self.trainer.num_devices  # of this machine alone
        place_loops(self.trainer)
        (optimizer,), (schedule,) = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        apply_options(optimizer, cast(LambdaLR, schedule.scheduler), self.optimizer_options)

    def on_train_epoch_start(self) -> None:
        """No epoch but the first that a resumed run is in goes on from anywhere."""
        begin_epoch(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained weights only, and the options that rebuild the encoders around them."""
        trained = self._trained_shapes()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint.update(own_options(self.encoder))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights of another configuration, which would silently leave the base model as it is.

        Raises:
            UserError: the checkpoint holds other weights than this module trains, or of an encoder that
                embeds otherwise.
        """
        configured = own_options(self.encoder)
        for key, field in CHECKPOINT_KEYS.items():
            check_same_encoder(field, checkpoint.get(key), configured.get(key))
        held = {name: weight.shape for name, weight in checkpoint["state_dict"].items()}
        differing = self._trained_shapes().items() ^ held.items()
        if differing:
            raise UserError(
                "the checkpoint's weights are not those that this configuration trains (first difference: "
                f"{min(name for name, _ in differing)}); give the config.yaml of its run with --config"
            )

    def _trained_shapes(self) -> dict[str, torch.Size]:
        return {name: weight.shape for name, weight in self.named_parameters() if weight.requires_grad}


def _compared(embeddings: Tensor, batch: RetrievalBatch) -> StepEmbeddings:
    """What the objective reads of a step: its embeddings, and what the batch knows of them."""
    return StepEmbeddings(
        embeddings[batch.query_rows],
        embeddings[batch.document_rows],
        batch.positives,
        batch.known_positives,
        negatives=batch.negatives,
        teacher_scores=batch.teacher_scores,
        teacher_queries=batch.teacher_queries,
        teacher_documents=batch.teacher_documents,
        query_groups=batch.query_groups,
        document_groups=batch.document_groups,
        known_ids=batch.known_ids,
        document_ids=batch.document_ids,
        temperature=batch.temperature,
    )
