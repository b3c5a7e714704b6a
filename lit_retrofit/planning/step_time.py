"""How long a step takes, by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retrofit_kernels.cost import loss_cost

from lit_retrofit.planning.memory import Kept, Run
from lit_retrofit.planning.sizes import Flop

CountFlop = Callable[[float], Flop]
"""Operations for each token of texts of a length."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by part, and what follows from them.

    Attributes:
        forward: the first pass over all of a device's texts.
        recomputed: the second forward of micro-batches whose graph was not kept.
        backward: through the encoder.
        loss: similarities and their gradients.
        update: AdamW.
        total: their sum.
        recomputed_share: of the tokens.
        tokens: of a step, of all devices.
        examples_per_hour: queries of all devices.
    """

    forward: float
    recomputed: float
    backward: float
    loss: float
    update: float
    total: float
    recomputed_share: float
    tokens: float
    examples_per_hour: float


def step_time(run: Run, batch: int, kept: Kept, flop: CountFlop) -> StepTime:
    """Seconds of a step: a device's operations over its rates; loading of data is taken to run beside it."""
    device = run.device
    made = run.made_weights > 0  # once for a step; where they are not kept for each pass of a micro-batch
    forward = flop(run.texts.document_tokens).merging if made else 0.0
    backward = recomputed = tokens = again = 0.0
    for group in kept.groups:
        each = flop(group.length)
        merging = 0.0 if made else each.merging
        tokens += group.count * group.tokens
        forward += group.count * (group.tokens * each.forward + merging)
        backward += group.count * (group.tokens * each.backward + merging)
    for group in kept.recomputed:
        each = flop(group.length)
        merging = 0.0 if made else each.merging
        again += group.count * group.tokens
        pass_ = each.trained_forward if kept.frozen_outputs else each.forward
        recomputed += group.count * (group.tokens * pass_ + merging)
    loss = _loss_seconds(run, run.own(batch), round(batch * run.texts.documents_per_query))
    # weight, gradient and two moments are read, all but the gradient written
    update = 7 * 4 * run.parameters.trainable / device.bandwidth
    parts = (
        forward / device.forward, recomputed / device.forward, backward / device.backward, loss, update,
    )  # fmt: skip
    total = sum(parts)
    return StepTime(*parts, total, again / tokens, run.texts.tokens(batch), batch * 3600 / total)


def _loss_seconds(run: Run, rows: int, columns: int) -> float:
    """By the kernels' cost model, or three products of 2·B·N·D at the rate of a large one."""
    if run.device.card is not None:
        return loss_cost(rows, columns, run.dimension, "float32", run.device.card).seconds
    return 6 * rows * columns * run.dimension / run.device.product
