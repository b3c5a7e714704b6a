"""A plan of a training run, out of its configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lit_retrofit.errors import UserError
from lit_retrofit.model.dual import DualEncoder
from lit_retrofit.planning.devices import CPU, find_card, measure_cpu
from lit_retrofit.planning.memory import Memory, Run, largest_batch, step_memory
from lit_retrofit.planning.probe import measure_graph
from lit_retrofit.planning.sizes import (
    Parameters,
    Split,
    count_flop,
    count_parameters,
    count_split,
    embedding_table,
    made_weights,
)
from lit_retrofit.planning.step_time import StepTime, step_time
from lit_retrofit.planning.workload import Texts
from lit_retrofit.training.lit_module import Retriever


@dataclass(frozen=True)
class Settings:
    """What of the configuration matters beside the model.

    Attributes:
        device: cpu or a card's name.
        precision: the trainer's.
        batch_size: queries of a step, of all devices together.
        token_budget: tokens of a micro-batch.
        graph_memory: gigabytes of graphs that may be kept; None takes a share of what is free.
        devices: of each machine.
        num_nodes: machines.
        sharded: whether the strategy splits the weights over all devices.
    """

    device: str
    precision: str
    batch_size: int
    token_budget: int
    graph_memory: float | None
    devices: int = 1
    num_nodes: int = 1
    sharded: bool = False

    @property
    def all_devices(self) -> int:
        """Of all machines: what shares a step's queries."""
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
        model: its name.
        settings: of the run.
        texts: what a query brings into a step.
        measured: whether the rates behind `time` were measured on this machine; else they are predictions.
        parameters: how many, and how many are trained.
        memory: of a step on each device, in bytes by part.
        largest_batch: queries of all devices that fit in memory, with as many graphs kept as there is room
            for; 0 if none.
        largest_batch_kept: the same with no text embedded twice.
        time: of a step, in seconds by part.
        verdict: whether it fits, in a sentence.
        assumptions: a sentence each.
    """

    model: str
    settings: Settings
    texts: Texts
    measured: bool
    parameters: Parameters
    memory: Memory
    largest_batch: int
    largest_batch_kept: int
    time: StepTime
    verdict: str
    assumptions: tuple[str, ...]


def make_plan(retriever: Retriever, texts: Texts, settings: Settings) -> Plan:
    """Estimates memory and time of a step.

    Args:
        retriever: without weights (meta device).
        texts: what a query brings into a step.
        settings: of the run.

    Raises:
        UserError: the run has two encoders.
    """
    encoder = retriever.encoder
    if isinstance(encoder, DualEncoder):
        raise UserError(
            "model.document_encoder: a plan is of one encoder; leave it out, and plan each model as "
            "model.encoder by itself"
        )
    half = settings.precision.startswith(("bf16", "16"))
    lora = encoder.options.lora
    merged = lora is not None and not half and not lora.dropout
    length = texts.document_tokens
    device = (
        measure_cpu(encoder, length, half=half, merged=merged)
        if settings.device == CPU
        else find_card(settings.device, settings.precision)
    )
    device = device.shared(settings.devices)
    run = Run(
        device=device,
        parameters=count_parameters(retriever, encoder),
        table_trained=embedding_table(encoder).requires_grad,
        dimension=encoder.dimension,
        made_weights=made_weights(encoder, device.memory, half=half) if device.on_cpu else 0,
        graph=measure_graph(encoder, length, half=half, gpu=not device.on_cpu),
        frozen_token_bytes=encoder.frozen.token_bytes if encoder.frozen else 0,
        graph_memory=settings.graph_memory,
        token_budget=settings.token_budget,
        texts=texts,
        devices=settings.all_devices,
        split=count_split(encoder) if settings.sharded and settings.all_devices > 1 else Split(),
    )
    memory, kept = step_memory(run, settings.batch_size)
    largest = _largest(run, _fits)
    return Plan(
        encoder.options.model, settings, texts, device.measured, run.parameters, memory, largest,
        _largest(run, _fits_without_recomputing),
        step_time(run, settings.batch_size, kept, partial(count_flop, encoder, merged=merged)),
        _verdict(memory, largest),
        (*device.assumptions, "of the loss, InfoNCE alone is counted", *_shared(run)),
    )  # fmt: skip


def _shared(run: Run) -> list[str]:
    if run.devices == 1:
        return []
    held = "holds all weights"
    if run.split.weights:
        held = "has its part of the weights, and all of them in a step"
    return [
        f"{run.devices} devices share a step's queries; each {held}, and what they send to each other takes "
        "no time"
    ]


def _largest(run: Run, holds: Callable[[Run, int], bool]) -> int:
    """Queries of all devices, each of which takes equally many."""
    return run.devices * largest_batch(lambda each: holds(run, each * run.devices))


def _fits(run: Run, batch: int) -> bool:
    return step_memory(run, batch)[0].fits


def _fits_without_recomputing(run: Run, batch: int) -> bool:
    memory, kept = step_memory(run, batch)
    return memory.fits and not kept.recomputed


def _verdict(memory: Memory, largest: int) -> str:
    free = max(0, memory.available - memory.program)
    if memory.fits:
        return f"fits: {gigabytes(memory.total)} of {gigabytes(free)}"
    if memory.weights + memory.gradients + memory.optimizer > free:
        return (
            f"can never fit: weights, gradients and optimizer alone take "
            f"{gigabytes(memory.weights + memory.gradients + memory.optimizer)} of {gigabytes(free)}"
        )
    if largest == 0:
        return (
            f"can never fit: a batch of one query takes more than the {gigabytes(free)} there are; "
            "lower model.graph_memory or data.options.token_budget"
        )
    return f"does not fit: {gigabytes(memory.total)} of {gigabytes(free)}; the largest batch is {largest:,}"


def gigabytes(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.2f} GB"
