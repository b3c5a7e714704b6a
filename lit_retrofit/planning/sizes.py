"""Parameters, and floating-point operations for each token, counted on the module tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.kept_weights import KEPT_SHARE
from lit_retrofit.model.lora import find_blocks
from lit_retrofit.model.merged_lora import MergedLoraLinear


@dataclass(frozen=True)
class Parameters:
    """How many numbers there are.

    Attributes:
        total: of encoder and objective.
        trainable: of them.
        embeddings: of the table of token embeddings.
        trainable_share: trainable / total.
    """

    total: int
    trainable: int
    embeddings: int
    trainable_share: float


def count_parameters(module: nn.Module, encoder: Encoder) -> Parameters:
    """Counts a module that holds the encoder; tied weights count once."""
    total = sum(p.numel() for p in module.parameters())
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Parameters(total, trainable, embedding_table(encoder).numel(), trainable / total)


@dataclass(frozen=True)
class Split:
    """How many numbers are split over the devices (`sharded_strategy.py`); the others are whole on each.

    Attributes:
        weights: of the encoder.
        trained: of them.
    """

    weights: int = 0
    trained: int = 0


def count_split(encoder: Encoder) -> Split:
    """Counts what is split where the strategy splits: all of the encoder, but for adapters."""
    parameters = list(encoder.backbone.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    return Split(total, trained) if encoder.options.lora is None else Split(total - trained)


def embedding_table(encoder: Encoder) -> nn.Parameter:
    """The token embeddings: (vocabulary, width)."""
    return encoder.backbone.get_input_embeddings().weight


def made_weights(encoder: Encoder, memory: float, *, half: bool) -> int:
    """Bytes that LoRA layers make of their weights and keep for a step of training on a CPU.

    Args:
        encoder: its shapes are enough.
        memory: bytes that are free.
        half: whether the run computes in 16 bits.
    """
    options = encoder.options
    if options.lora is None or options.lora.dropout or options.compile:
        return 0
    adapted: list[Any] = [module for module in encoder.modules() if isinstance(module, MergedLoraLinear)]
    made = sum((2 if half else 4) * layer.get_base_layer().weight.numel() for layer in adapted)
    return min(made, int(KEPT_SHARE * memory))


@dataclass(frozen=True)
class Flop:
    """Operations of the matrix products (a multiply-add is two).

    Attributes:
        frozen_forward: for each token, in the frozen blocks below all that is trained.
        trained_forward: for each token, in the blocks above.
        backward: for each token.
        merging: of the weights of LoRA layers that are computed as one product, each time they are made.
    """

    frozen_forward: float
    trained_forward: float
    backward: float
    merging: float

    @property
    def forward(self) -> float:
        """For each token."""
        return self.frozen_forward + self.trained_forward


def first_trained_block(encoder: Encoder) -> int:
    """Number of the lowest block that the backward pass reaches."""
    name, blocks = find_blocks(encoder.backbone)
    for parameter_name, parameter in encoder.backbone.named_parameters():
        if parameter_name.startswith(f"{name}.0."):
            break
        if parameter.requires_grad:
            return 0
    trained = (any(parameter.requires_grad for parameter in block.parameters()) for block in blocks)
    return next((number for number, found in enumerate(trained) if found), len(blocks))


def count_flop(encoder: Encoder, length: float, *, merged: bool) -> Flop:
    """Operations of encoding texts of one length.

    A linear layer of P weights takes 2·P forward, 2·P for its input's gradient and, if it is trained, 2·P for
    its own (Kaplan et al., arXiv 2001.08361, section 2.1). Attention takes 4·L·d in each block forward, twice
    that backward. LoRA's two narrow matrices of P weights take 2·P forward and 4·P backward; merged layers
    (`merged_lora.py`) take nothing forward but 2·r·in·out whenever their weights are made. Gradient
    checkpointing repeats the forward of the trained blocks. Norms, activations and pooling are not counted,
    and of attention with a window no less than of a full one: an upper bound for long texts.

    Args:
        encoder: its shapes are enough (meta device).
        length: tokens of each text.
        merged: whether LoRA layers are computed as one product: in fp32, without dropout on their input.
    """
    _, blocks = find_blocks(encoder.backbone)
    first = first_trained_block(encoder)
    attention = 4 * length * encoder.dimension
    frozen, trained, backward, merging = 0.0, 0.0, 0.0, 0.0
    for number, block in enumerate(blocks):
        linear = _Linear.of(block)
        forward = 2 * linear.base + attention + (0 if merged else 2 * linear.lora)
        merging += linear.merging if merged else 0
        if number < first:
            frozen += forward
            continue
        trained += forward
        backward += 2 * linear.base + 2 * linear.trained + 2 * attention + 4 * linear.lora
    if encoder.options.gradient_checkpointing:
        backward += trained
    return Flop(frozen, trained, backward, merging)


@dataclass(frozen=True)
class _Linear:
    """Weights of a block's linear layers, and what merging its adapters takes."""

    base: int
    trained: int
    lora: int
    merging: float

    @classmethod
    def of(cls, block: nn.Module) -> _Linear:
        named: list[tuple[str, Any]] = [(n, m) for n, m in block.named_modules() if isinstance(m, nn.Linear)]
        base = [m.weight for n, m in named if ".lora_" not in n]
        lora = [m.weight for n, m in named if ".lora_" in n]
        adapted = [m for _, m in block.named_modules() if hasattr(m, "lora_A")]
        merging = sum(
            2.0 * m.get_base_layer().weight.numel() * down.weight.shape[0]
            for m in adapted
            for down in m.lora_A.values()
        )
        return cls(
            sum(w.numel() for w in base),
            sum(w.numel() for w in base if w.requires_grad),
            sum(w.numel() for w in lora),
            merging,
        )
