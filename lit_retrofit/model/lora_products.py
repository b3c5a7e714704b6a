"""The products of LoRA layers that read one input, with as few passes over memory as they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lit_retrofit.model.kept_weights import KeptWeights

_ALIGNED = 8
"""Columns of a 16-bit matrix are a multiple of this: tensor cores read sixteen bytes at a time."""


@dataclass(frozen=True)
class Adapted:
    """A linear layer and its adapter: W + s·B·A.

    Attributes:
        weight: W, (out, in).
        bias: (out,), or None.
        down: A, (rank, in).
        up: B, (out, rank).
        scaling: s.
    """

    weight: Tensor
    bias: Tensor | None
    down: Tensor
    up: Tensor
    scaling: float


Product = type["MergedProduct"] | type["HalfProduct"]


def multiply(product: Product, x: Tensor, layers: Sequence[Adapted], kept: KeptWeights | None) -> Any:
    """The outputs of all layers: a tuple of (…, out).

    Args:
        product: how.
        x: (…, in), the input of all of them.
        layers: with as many inputs each. Their weights and biases get no gradient.
        kept: where weights made of theirs are, if anywhere.
    """
    tensors = [t for layer in layers for t in (layer.weight, layer.bias, layer.down, layer.up)]
    return product.apply(x, kept, tuple(layer.scaling for layer in layers), *tensors)


def _save(ctx: Any, kept: KeptWeights | None, layers: list[Adapted], *states: Tensor) -> None:
    """What backward needs; neither biases nor weights made of others."""
    ctx.kept, ctx.scalings, ctx.states = kept, [layer.scaling for layer in layers], len(states)
    ctx.save_for_backward(*states, *(t for layer in layers for t in (layer.weight, layer.down, layer.up)))


def _saved(ctx: Any) -> tuple[list[Tensor], list[Adapted]]:
    tensors = list(ctx.saved_tensors)
    states, tensors = tensors[: ctx.states], tensors[ctx.states :]
    parts = zip(tensors[::3], tensors[1::3], tensors[2::3], ctx.scalings, strict=True)
    return states, [Adapted(weight, None, down, up, s) for weight, down, up, s in parts]


def _adapted(tensors: Sequence[Any], scalings: Sequence[float]) -> list[Adapted]:
    parts = zip(tensors[::4], tensors[1::4], tensors[2::4], tensors[3::4], scalings, strict=True)
    return [Adapted(*part) for part in parts]


def _gradients(layers: list[Adapted], to_x: Tensor | None, to_down: Tensor, to_up: list[Tensor]) -> Any:
    """In the order of `multiply`'s tensors, in the adapters' type."""
    downs = to_down.split([len(layer.down) for layer in layers])
    found: list[Tensor | None] = [to_x, None, None]
    for layer, down, up in zip(layers, downs, to_up, strict=True):
        found += [None, None, down.to(layer.down.dtype), up.to(layer.up.dtype)]
    return tuple(found)


class MergedProduct(torch.autograd.Function):
    """x (W + s·B·A)ᵀ + b, the sum made first: one product instead of three and two passes over the output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kept: KeptWeights | None, scalings: tuple[float, ...], *tensors: Any
    ) -> tuple[Tensor, ...]:
        """See `multiply`."""
        layers = _adapted(tensors, scalings)
        _save(ctx, kept, layers, x)
        return tuple(F.linear(x, _merged(layer, kept), layer.bias) for layer in layers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The input's gradient, and both matrices' of each adapter."""
        (x,), layers = _saved(ctx)
        rows, gradients = x.flatten(0, -2), tuple(gradient.flatten(0, -2) for gradient in gradients)
        parts = list(zip(layers, gradients, strict=True))
        to_narrow = torch.cat([(g @ layer.up).mul_(layer.scaling) for layer, g in parts], 1)
        narrow = (rows @ torch.cat([layer.down for layer in layers]).T).split(_ranks(layers), 1)
        # (rank, tokens) x (tokens, out) takes half the time of its transpose.
        to_up = [(n.T @ g).mul_(layer.scaling).T for (layer, g), n in zip(parts, narrow, strict=True)]
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = gradients[0] @ _merged(layers[0], ctx.kept)
            for layer, gradient in parts[1:]:
                to_x.addmm_(gradient, _merged(layer, ctx.kept))
            to_x = to_x.view(x.shape)
        return _gradients(layers, to_x, to_narrow.T @ rows, to_up)


def _merged(layer: Adapted, kept: KeptWeights | None) -> Tensor:
    """(out, in)."""

    def make() -> Tensor:
        return torch.addmm(layer.weight, layer.up, layer.down, alpha=layer.scaling)

    return make() if kept is None else kept.get((layer.weight.data_ptr(), layer.up.data_ptr()), make)


class HalfProduct(torch.autograd.Function):
    """[x | x Aᵀ] [W | s·B]ᵀ + b in 16 bits, where the sum W + s·B·A would lose the update in rounding."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kept: KeptWeights | None, scalings: tuple[float, ...], *tensors: Any
    ) -> tuple[Tensor, ...]:
        """See `multiply`. In autocast's type."""
        layers = _adapted(tensors, scalings)
        half = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            wide, narrow = _widened(x, layers, half)
            # x as it came: other layers keep it, too.
            _save(ctx, kept, layers, x, narrow)
            outputs = []
            for number, layer in enumerate(layers):
                bias = None if layer.bias is None else layer.bias.to(half)
                y = F.linear(wide, _augmented(layers, number, half, kept), bias)
                outputs.append(y.unflatten(0, x.shape[:-1]))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The input's gradient, and both matrices' of each adapter."""
        (x, narrow), layers = _saved(ctx)
        half, width = narrow.dtype, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            gradients = tuple(gradient.flatten(0, -2) for gradient in gradients)
            augmented = [_augmented(layers, number, half, ctx.kept) for number in range(len(layers))]
            ranks = _ranks(layers)
            columns = zip(augmented, _starts(layers, width), ranks, strict=True)
            ups = [weight[:, start : start + rank] for weight, start, rank in columns]
            to_narrow = torch.cat([g @ up for g, up in zip(gradients, ups, strict=True)], 1)
            pieces = zip(layers, narrow.split(ranks, 1), gradients, strict=True)
            to_up = [(n.T @ gradient).float().mul_(layer.scaling).T for layer, n, gradient in pieces]
            to_x = None
            if ctx.needs_input_grad[0]:
                to_x = to_narrow @ torch.cat([layer.down for layer in layers]).to(half)
                for gradient, weight in zip(gradients, augmented, strict=True):
                    to_x.addmm_(gradient, weight[:, :width])
                to_x = to_x.view(x.shape).to(x.dtype)
            to_down = to_narrow.T @ x.flatten(0, -2).to(half)
        return _gradients(layers, to_x, to_down, to_up)


def _ranks(layers: list[Adapted]) -> list[int]:
    return [len(layer.down) for layer in layers]


def _starts(layers: list[Adapted], width: int) -> list[int]:
    """The first column of each adapter beside the input's."""
    return list(accumulate(_ranks(layers)[:-1], initial=width))


def _full_width(layers: list[Adapted]) -> int:
    """Columns of input and adapters together, and what is missing to an aligned row."""
    columns = layers[0].weight.shape[1] + sum(_ranks(layers))
    return columns + -columns % _ALIGNED


def _widened(x: Tensor, layers: list[Adapted], half: torch.dtype) -> tuple[Tensor, Tensor]:
    """[x | x Aᵀ of each layer | zeros] of (tokens, _full_width), and its middle as a tensor of its own."""
    rows, width = x.flatten(0, -2), x.shape[-1]
    wide = torch.empty((len(rows), _full_width(layers)), dtype=half, device=x.device)
    wide[:, :width] = rows
    narrow = wide[:, :width] @ torch.cat([layer.down for layer in layers]).to(half).T
    end = width + narrow.shape[1]
    wide[:, width:end] = narrow
    wide[:, end:] = 0
    return wide, narrow


def _augmented(layers: list[Adapted], number: int, half: torch.dtype, kept: KeptWeights | None) -> Tensor:
    """[W | 0 | s·B | 0] of one layer, B where its part of the widened input is. (out, _full_width)."""
    layer = layers[number]
    width = layer.weight.shape[1]
    start, full = _starts(layers, width)[number], _full_width(layers)

    def make() -> Tensor:
        made = torch.zeros((layer.weight.shape[0], full), dtype=half, device=layer.weight.device)
        made[:, :width] = layer.weight
        made[:, start : start + layer.up.shape[1]] = layer.up * layer.scaling
        return made

    if kept is None:
        return make()
    return kept.get((layer.weight.data_ptr(), layer.up.data_ptr(), half, start, full), make)
