"""LoRA layers that compute in float32 what the base layer alone would compute, and no more."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class MergedLoraLinear(Linear):
    """peft's LoRA layer: the same weights, the same function, fewer passes over memory.

    With W' = W + s·B·A (Hu et al., arXiv 2106.09685, section 4.1), made anew in every call, the layer is one
    product x W'ᵀ instead of a product, two narrow ones, a multiplication and an addition over the whole
    output. Making W' costs 2·r·in·out operations, r / tokens of the layer's own.

    Where the layer computes in half precision the update would be lost in rounding W', and with dropout on
    the adapter's input there is no W'; both go peft's way.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output for (…, in) inputs: (…, out)."""
        if not self._merges(x, *args, **kwargs):
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        base = self.get_base_layer()
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return _MergedLinear.apply(x, base.weight, base.bias, down, up, self.scaling[name])

    def _merges(self, x: Tensor, *args: Any, **kwargs: Any) -> bool:
        base = self.get_base_layer()
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        name = self.active_adapters[0]
        plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
        drops = plain and self.training and isinstance(self.lora_dropout[name], torch.nn.Dropout)
        exact = x.dtype == base.weight.dtype and x.dtype in (torch.float32, torch.float64)
        return (
            plain
            and not drops
            and exact
            and not base.weight.requires_grad
            and not torch.is_autocast_enabled(x.device.type)
        )


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
