"""What a device can do: a card by its data sheet and stated assumptions, this CPU by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch
from retrofit_kernels.cost import ACHIEVABLE_ARITHMETIC, ACHIEVABLE_BANDWIDTH, CARDS, Card

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import free_memory, multiplies_bf16
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.planning.probe import BLOCKS, LONGEST, autocast, cut, probe_texts
from lit_retrofit.planning.sizes import count_flop
from lit_retrofit.training.freed_memory import SPARE, SPARE_SHARE

CPU = "cpu"
ENCODER_SHARE = 0.4
"""Assumption: the share of a card's peak that an encoder of 30M to 600M parameters reaches, norms,
activations and launches included."""
CONTEXT_BYTES = 600_000_000
"""Assumption: what CUDA's context and libraries take of a card's memory."""
_PROBE_TOKENS = 1024
_PROBE_SECONDS = 4.0


@dataclass(frozen=True)
class Device:
    """Rates are what is expected to be reached, not peaks.

    Attributes:
        name: a key of the table of cards, or cpu.
        memory: bytes that a run may take, the program's own included.
        program: bytes that it takes before the model comes.
        forward: FLOP/s of the encoder's forward pass.
        backward: FLOP/s of its backward pass.
        product: FLOP/s of a large fp32 product, where the loss is not predicted by the card.
        bandwidth: of the memory, in bytes/s.
        measured: whether the rates were measured here; else they are predictions.
        assumptions: a sentence each.
        card: for the loss's cost model, where it applies.
    """

    name: str
    memory: int
    program: int
    forward: float
    backward: float
    product: float
    bandwidth: float
    measured: bool
    assumptions: tuple[str, ...]
    card: Card | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether it is no card."""
        return self.name == CPU

    def shared(self, processes: int) -> Device:
        """What each of several processes on one machine has: a part of a CPU, or a card of its own."""
        if not self.on_cpu or processes == 1:
            return self
        rates = {
            name: getattr(self, name) / processes for name in ("forward", "backward", "product", "bandwidth")
        }
        memory = self.program + (self.memory - self.program) // processes
        return replace(self, memory=memory, **rates)


def check_device(name: str) -> None:
    """Refuses an unknown name.

    Raises:
        UserError: with the names that there are.
    """
    if name != CPU and name not in CARDS:
        raise UserError(f"--device {name}: no such device; there are {', '.join([CPU, *CARDS])}")


def usual_precision(name: str) -> str:
    """The trainer.precision that a run takes on this device where the config names none."""
    card = CARDS.get(name)
    half = multiplies_bf16(torch.device(CPU)) if card is None else card.bfloat16 is not None
    return "bf16-mixed" if half else "32-true"


def find_card(name: str, precision: str) -> Device:
    """A card of the table.

    Args:
        name: its key.
        precision: the trainer's.

    Raises:
        UserError: the card has no instructions for the precision.
    """
    card = CARDS[name]
    kind, peak = "fp32 without tensor cores", card.float32  # torch uses no TF32 unless told to
    if precision.startswith(("bf16", "16")):
        kind = "bf16" if precision.startswith("bf16") else "fp16"
        rate = card.bfloat16 if kind == "bf16" else card.float16
        if rate is None:
            raise UserError(f"{card.name} does not multiply bf16; set --trainer.precision 16-mixed")
        peak = rate
    reached = ENCODER_SHARE * peak * 1e12
    return Device(
        name, int(card.memory * 1e9), CONTEXT_BYTES, reached, reached,
        ACHIEVABLE_ARITHMETIC * card.float32 * 1e12, ACHIEVABLE_BANDWIDTH * card.bandwidth * 1e9,
        measured=False,
        assumptions=(
            f"prediction, not a measurement: {card.name}, {card.source}",
            f"encoder at {ENCODER_SHARE:.0%} of the card's peak of {peak:g} TFLOP/s ({kind})",
            f"loss at {ACHIEVABLE_ARITHMETIC:.0%} of the peak, memory at {ACHIEVABLE_BANDWIDTH:.0%} of its "
            "bandwidth",
            f"{CONTEXT_BYTES / 1e9:.1f} GB for CUDA itself",
        ),
        card=card if card.tf32 is not None else None,
    )  # fmt: skip


def measure_cpu(encoder: Encoder, length: float, *, half: bool, merged: bool) -> Device:
    """This machine: a few blocks of the encoder's architecture forward and backward, a product, a copy.

    Takes some ten seconds at most.

    Args:
        encoder: its shapes are enough.
        length: tokens of a usual text.
        half: whether the run computes in 16 bits.
        merged: whether LoRA layers are computed as one product.
    """
    small = cut(encoder, BLOCKS)
    each = min(max(8, round(length)), LONGEST)
    ids, mask = probe_texts(max(1, _PROBE_TOKENS // each), each)

    def embed() -> torch.Tensor:
        with autocast(half):
            return small(ids, mask)

    def train() -> None:
        embeddings = embed()
        if embeddings.requires_grad:
            embeddings.backward(torch.ones_like(embeddings))

    with torch.no_grad():
        forward = _seconds(embed)
    both = _seconds(train)
    flop = count_flop(small, each, merged=merged)
    tokens = ids.numel()
    forward_rate = (flop.forward * tokens + flop.merging) / forward
    backward_rate = (flop.backward * tokens + flop.merging) / max(both - forward, 0.1 * both)
    product, bandwidth = _product_rate(), _copy_rate()
    program = psutil.Process().memory_info().rss
    return Device(
        CPU, free_memory(torch.device(CPU)) + program, program, forward_rate, backward_rate, product,
        bandwidth, measured=True,
        assumptions=(
            f"measured here on {torch.get_num_threads()} threads: encoder forward at "
            f"{forward_rate / 1e9:.0f} GFLOP/s and backward at {backward_rate / 1e9:.0f} GFLOP/s, "
            f"{min(BLOCKS, encoder.backbone.config.num_hidden_layers)} blocks with random weights on "
            f"{tokens} tokens",
            f"fp32 products at {product / 1e9:.0f} GFLOP/s, memory at {bandwidth / 1e9:.0f} GB/s",
            "memory: what is free now, and the program's own size now",
            "the parts are tensors; beside them glibc's heap may hold freed ones, up to "
            f"{SPARE / 1e9:.2f} GB or {SPARE_SHARE:.0%} of the kept graphs beyond what is taken again",
        ),
    )  # fmt: skip


def _seconds(run: Callable[[], object]) -> float:
    """The best of up to five runs within a few seconds, after one that does not count."""
    run()
    best, begin = float("inf"), time.perf_counter()
    for _ in range(5):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begin > _PROBE_SECONDS:
            break
    return best


def _product_rate() -> float:
    size = 1024
    left, right = torch.ones(size, size), torch.ones(size, size)
    return 2.0 * size**3 / _seconds(lambda: left @ right)


def _copy_rate() -> float:
    source = torch.ones(1 << 24)
    target = torch.empty_like(source)
    return 2.0 * source.nbytes / _seconds(lambda: target.copy_(source))
