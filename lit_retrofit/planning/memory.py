"""Memory of a step by part, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from retrofit_kernels._loss.strip_torch import CPU_STRIP_BYTES, CPU_STRIP_ROWS
from retrofit_kernels.cost import DEFAULT_STRIP_BYTES

from lit_retrofit.planning.devices import Device
from lit_retrofit.planning.probe import GraphCost
from lit_retrofit.planning.sizes import Parameters, Split
from lit_retrofit.planning.workload import Group, Texts, micro_batches
from lit_retrofit.training.graph_budget import CPU_SHARE, CUDA_SHARE

LARGEST = 1 << 24
"""Queries beyond which no larger batch is looked for."""
_FLOAT = 4


@dataclass(frozen=True)
class Run:
    """What the memory and the time of a step follow from.

    Attributes:
        device: where it runs.
        parameters: of encoder and objective.
        table_trained: whether the token embeddings are trained.
        dimension: of an embedding.
        made_weights: bytes that layers make of their weights and keep for a step (`kept_weights.py`).
        graph: what embedding a micro-batch takes.
        frozen_token_bytes: of the frozen blocks' output, 0 where there are none.
        graph_memory: the config's, in GB; None takes a share of what is free.
        token_budget: tokens of a micro-batch.
        texts: what a query brings.
        devices: that share a step's queries.
        split: of the parameters, what each device has a part of between steps.
    """

    device: Device
    parameters: Parameters
    table_trained: bool
    dimension: int
    made_weights: int
    graph: GraphCost
    frozen_token_bytes: int
    graph_memory: float | None
    token_budget: int
    texts: Texts
    devices: int = 1
    split: Split = field(default_factory=Split)

    def own(self, batch: int) -> int:
        """Queries of a step that one device takes; where they do not come out even, the most."""
        return -(-batch // self.devices)


@dataclass(frozen=True)
class Memory:
    """Bytes by part on each device, at the peak of a step after the first.

    Attributes:
        program: Python and its libraries, or CUDA's context.
        weights: in float32; where they are split, whole for the time of a step, beside the device's part.
        made_weights: of LoRA layers, made of theirs for one step; on a CPU.
        gradients: of what is trained, whole.
        optimizer: AdamW's two moments, split as the weights are.
        kept_graphs: of micro-batches that are not embedded twice.
        frozen_outputs: of the frozen blocks, kept for the second pass.
        embeddings: of all the device's texts, and their gradient.
        loss: a strip of logits, both sides' embeddings and their gradients: of the device's queries, and of
            all devices' documents. Gone before `work` comes.
        work: the micro-batch at work in the backward pass, beside the kept graphs; or what one embedded
            again takes, with its graph, beyond these, which are gone by then.
        total: all but the program; of loss and work the larger.
        available: on the device, for the program and the total.
        fits: program and total against available.
    """

    program: int
    weights: int
    made_weights: int
    gradients: int
    optimizer: int
    kept_graphs: int
    frozen_outputs: int
    embeddings: int
    loss: int
    work: int
    total: int
    available: int
    fits: bool


@dataclass(frozen=True)
class Kept:
    """Which graphs of a step a device keeps.

    Attributes:
        bytes: of graphs.
        frozen_outputs: bytes, 0 where the frozen blocks run twice.
        recomputed: micro-batches that are embedded twice.
        groups: all.
    """

    bytes: float
    frozen_outputs: float
    recomputed: list[Group]
    groups: list[Group]


def step_memory(run: Run, batch: int) -> tuple[Memory, Kept]:
    """Memory on each device of a step of this many queries over all of them, and which graphs it keeps."""
    number, split = run.parameters, run.split
    weights = _FLOAT * (number.total + _part(run, split.weights))
    gradients = _FLOAT * number.trainable
    optimizer = 2 * _FLOAT * (number.trainable - split.trained + _part(run, split.trained))
    own = run.own(batch)
    texts = own + round(own * run.texts.documents_per_query)
    embeddings = 2 * texts * run.dimension * _FLOAT
    loss = _loss_bytes(run, own, round(batch * run.texts.documents_per_query))
    groups = micro_batches(run.texts, own, run.token_budget)
    fixed = weights + run.made_weights + gradients + optimizer + embeddings
    most = max(loss, _work(run, Kept(0, 0, [], groups)))
    room = run.device.memory - run.device.program - fixed - most
    kept = _keep(run, groups, _limit(run, weights, room))
    work = _work(run, kept)
    total = round(fixed + kept.bytes + kept.frozen_outputs + max(loss, work))
    return Memory(
        run.device.program, weights, run.made_weights, gradients, optimizer, round(kept.bytes),
        round(kept.frozen_outputs), embeddings, round(loss), round(work), total, run.device.memory,
        run.device.program + total <= run.device.memory,
    ), kept  # fmt: skip


def _part(run: Run, count: int) -> int:
    """One device's, of so many numbers."""
    return -(-count // run.devices)


def _limit(run: Run, weights: int, room: float) -> float:
    """Bytes of graphs that may be kept: a share of what is free when only the weights are there.

    On a card the engine answers an error of memory by keeping less, down to the room that there is.
    """
    if run.graph_memory is not None:
        return run.graph_memory * 1e9
    free = max(0, run.device.memory - run.device.program - weights)
    return CPU_SHARE * free if run.device.on_cpu else max(0.0, min(CUDA_SHARE * free, room))


def _keep(run: Run, groups: list[Group], limit: float) -> Kept:
    """The last, which are the shortest: as many as the limit takes after the frozen blocks' output."""
    outputs = run.frozen_token_bytes * sum(group.count * group.tokens for group in groups)
    if outputs > limit / 2:
        outputs = 0.0
    room, kept = limit - outputs, 0.0
    recomputed: list[Group] = []
    for group in reversed(groups):
        each = run.graph.graph(group.tokens)
        fitting = min(group.count, int((room - kept) // each)) if each else group.count
        if recomputed:  # a later one did not fit
            fitting = 0
        kept += fitting * each
        if fitting < group.count:
            recomputed.append(Group(group.count - fitting, group.tokens, group.length))
    return Kept(kept, outputs, recomputed, groups)


def _work(run: Run, kept: Kept) -> float:
    """The most of: a kept graph's backward pass, a recomputed one's beyond them, a table's gradient."""
    graph = run.graph
    found = [graph.work(group.tokens) for group in kept.groups]
    found += [graph.graph(group.tokens) + graph.work(group.tokens) - kept.bytes for group in kept.recomputed]
    if run.table_trained and sum(group.count for group in kept.groups) > 1:
        # each micro-batch makes a gradient of the whole table, and adds it
        found.append(_FLOAT * run.parameters.embeddings)
    return max(found, default=0.0)


def _loss_bytes(run: Run, rows: int, columns: int) -> float:
    """A strip in fp32, both sides' embeddings and gradients, and what adds these up text by text."""
    row = columns * _FLOAT
    height = min(rows, max(1, DEFAULT_STRIP_BYTES // row))
    if run.device.on_cpu:
        height = max(1, min(height, CPU_STRIP_ROWS, CPU_STRIP_BYTES // row))
    return height * row + 3 * (rows + columns) * run.dimension * _FLOAT


def largest_batch(holds: Callable[[int], bool]) -> int:
    """The most queries for which a condition holds that more of them can only break; 0 for none."""
    if not holds(1):
        return 0
    low, high = 1, 2
    while high <= LARGEST and holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return min(low, LARGEST)
