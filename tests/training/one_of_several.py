"""One process of several that train a tiny model, or the only one: writes what it found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.data.options import DataOptions, SamplingOptions
from lit_retrofit.model import packing
from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.objective import ObjectiveOptions
from lit_retrofit.training.optimizer import OptimizerOptions
from lit_retrofit.training.sharding import own_part


def refuse(*arguments: object) -> Tensor:
    raise NotImplementedError("as on a GPU in float32")


def held(tensors: Iterable[Tensor]) -> float:
    """The share of the numbers that this process holds."""
    tensors = [tensor.detach() for tensor in tensors]
    return sum(own_part(tensor).numel() for tensor in tensors) / sum(tensor.numel() for tensor in tensors)


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Recorder(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.micro_batches: list[int] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.micro_batches.append(len(batch.micro_batches))

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        gradients = [whole(p.grad).flatten() for p in module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))


def train(
    environment: Mapping[str, str], output: Path, model: Path, data: Path, given: Mapping[str, Any]
) -> None:
    """Ranks and addresses are in the environment, as torchrun sets them."""
    os.environ.update(environment)
    if not given.get("packs", True):
        packing._on_cpu = refuse
    torch.manual_seed(int(os.environ["RANK"]))  # the first process's weights must win
    module = Retriever(
        EncoderOptions(
            str(model),
            dropout=0.0,
            lora=LoraOptions(r=2, alpha=8) if given["lora"] else None,
            gradient_checkpointing=given.get("gradient_checkpointing", False),
        ),
        ObjectiveOptions(0.1, learn_temperature=True),
        OptimizerOptions(0.005, schedule="constant", warmup=0.0),
        graph_memory=given["graph_memory"],
    )
    if given["lora"]:
        generator = torch.Generator().manual_seed(0 if os.environ["RANK"] == "0" else 1)
        for name, parameter in module.named_parameters():
            if ".lora_" in name:
                parameter.data.normal_(std=0.2, generator=generator)
    records = RetrievalData(
        DataOptions(train=(str(data),), validation_share=0.0, token_budget=30 + 40 * int(os.environ["RANK"])),
        SamplingOptions(batch_size=12, negatives=1),
        tokenize=module.tokenizer,
    )
    recorder = Recorder()
    world = int(os.environ["WORLD_SIZE"])
    trainer = Trainer(
        accelerator="cpu", devices=world, strategy=given.get("strategy", "auto"),
        precision="64-true", max_steps=5, max_epochs=-1, callbacks=[recorder], logger=False,
        accumulate_grad_batches=given["accumulate"], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=given["clip"],
    )  # fmt: skip
    trainer.fit(module, datamodule=records)
    weights = {name: whole(p.detach()) for name, p in module.named_parameters() if p.requires_grad}
    found = {
        "losses": recorder.losses, "norms": recorder.norms, "weights": weights,
        "micro_batches": recorder.micro_batches, "processes": module.graph_budget.processes,
        "held_weights": held(module.encoder.parameters()),
        "held_moments": held(state["exp_avg"] for state in trainer.optimizers[0].state.values()),
    }  # fmt: skip
    torch.save(found, f"{output}.{os.environ['RANK']}")
