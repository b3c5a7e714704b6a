"""LoRA layers that compute what the base layer alone would compute, and little more."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_HALVES = (torch.float16, torch.bfloat16)


class MergedLoraLinear(Linear):
    """peft's LoRA layer: the same weights, the same function, fewer passes over memory.

    With W' = W + s·B·A (Hu et al., arXiv 2106.09685, section 4.1), made anew in every call, the layer is one
    product x W'ᵀ instead of a product, two narrow ones, a multiplication and an addition over the whole
    output. Making W' costs 2·r·in·out operations, r / tokens of the layer's own.

    Under autocast to 16 bits the update would be lost in rounding W'. There it is added within the narrow
    product, x Wᵀ + s·(x Aᵀ) Bᵀ: no multiplication, no addition, no two conversions of the input. With dropout
    on the adapter's input, and whatever else is unusual, the layer is peft's.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output for (…, in) inputs: (…, out)."""
        if args or kwargs or not self._is_plain():
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        base: Any = self.get_base_layer()
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        linear = self._linear(x, base.weight)
        if linear is None:
            return super().forward(x)
        return linear.apply(x, base.weight, base.bias, down, up, self.scaling[name])

    def _is_plain(self) -> bool:
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        name = self.active_adapters[0]
        plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
        drops = plain and self.training and isinstance(self.lora_dropout[name], torch.nn.Dropout)
        return plain and not drops and not self.get_base_layer().weight.requires_grad

    @staticmethod
    def _linear(x: Tensor, weight: Tensor) -> type[torch.autograd.Function] | None:
        """How the layer is computed in the precision of the moment; None for peft's way."""
        if torch.is_autocast_enabled(x.device.type):
            half = torch.get_autocast_dtype(x.device.type) in _HALVES
            return _HalfLinear if half and weight.dtype == torch.float32 else None
        exact = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
        return _MergedLinear if exact else None


class _MergedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scaling = scaling
        return F.linear(x, torch.addmm(weight, up, down, alpha=scaling), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ torch.addmm(weight, up, down, alpha=ctx.scaling)
        gradient, x = gradient.flatten(0, -2), x.flatten(0, -2)
        to_down = (gradient @ up).mul_(ctx.scaling).T @ x
        to_up = gradient.T @ (x @ down.T).mul_(ctx.scaling)
        return to_x, None, None, to_down, to_up, None


class _HalfLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        half = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(0, -2).to(half)
            narrow = rows @ down.to(half).T
            y = F.linear(rows, weight.to(half), None if bias is None else bias.to(half))
            y.addmm_(narrow, up.to(half).T, alpha=scaling)
        # x as it came: other layers keep it, too. Weights in 16 bits would be kept once for each micro-batch.
        ctx.save_for_backward(x, narrow, weight, down, up)
        ctx.scaling = scaling
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, narrow, weight, down, up = ctx.saved_tensors
        half = narrow.dtype
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient.flatten(0, -2)
            to_narrow = (gradient @ up.to(half)).mul_(ctx.scaling)
            to_down = to_narrow.T @ x.flatten(0, -2).to(half)
            to_up = (gradient.T @ narrow).mul_(ctx.scaling)
            to_x = None
            if ctx.needs_input_grad[0]:
                to_x = (gradient @ weight.to(half)).addmm_(to_narrow, down.to(half)).view(x.shape).to(x.dtype)
        return to_x, None, None, to_down.to(down.dtype), to_up.to(up.dtype), None
