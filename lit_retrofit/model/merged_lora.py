"""LoRA layers that compute what the base layers alone would compute, and little more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from lit_retrofit.model.kept_weights import in_use
from lit_retrofit.model.lora_products import Adapted, HalfProduct, MergedProduct, Product, multiply

_HALVES = (torch.float16, torch.bfloat16)


class MergedLoraLinear(Linear):
    """peft's LoRA layer: the same weights, the same function, fewer passes over memory.

    With W' = W + s·B·A (Hu et al., arXiv 2106.09685, section 4.1) the layer is one product x W'ᵀ instead of a
    product, two narrow ones, a multiplication and an addition over the whole output. Making W' costs
    2·r·in·out operations, r / tokens of the layer's own.

    Under autocast to 16 bits the update would be lost in rounding W'. There the narrow product x Aᵀ is laid
    beside x, and s·B beside W: no multiplication, no addition, no conversion back and forth. With dropout on
    the adapter's input, and whatever else is unusual, the layer is peft's.

    Layers that read one input are computed together (`SharedInput`).
    """

    shared: SharedInput | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output for (…, in) inputs: (…, out)."""
        product = None if args or kwargs or not self.is_plain() else self._product(x)
        if product is None:
            return super().forward(x, *args, **kwargs)
        if torch.compiler.is_compiling():
            return multiply(product, x, [self.adapted()], None)[0]
        if self.shared is None:
            return multiply(product, x, [self.adapted()], in_use(x.device))[0]
        return self.shared.output(self, x, product)

    def is_plain(self) -> bool:
        """Whether the layer is W + s·B·A and nothing else, of which the adapter alone is trained."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        name = self.active_adapters[0]
        plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
        drops = plain and self.training and isinstance(self.lora_dropout[name], torch.nn.Dropout)
        return plain and not drops and not self.get_base_layer().weight.requires_grad

    def adapted(self) -> Adapted:
        """Its tensors."""
        (name,) = self.active_adapters
        base: Any = self.get_base_layer()
        down: Any = self.lora_A[name]
        up: Any = self.lora_B[name]
        return Adapted(base.weight, base.bias, down.weight, up.weight, self.scaling[name])

    def _product(self, x: Tensor) -> Product | None:
        """How the layer is computed in the precision of the moment; None for peft's way."""
        weight: Any = self.get_base_layer().weight
        if torch.is_autocast_enabled(x.device.type):
            half = torch.get_autocast_dtype(x.device.type) in _HALVES
            return HalfProduct if half and weight.dtype == torch.float32 else None
        exact = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
        return MergedProduct if exact else None


@dataclass(frozen=True, eq=False)
class _Key:
    """What outputs were computed of, and how."""

    x: Tensor
    product: Product
    with_graph: bool

    def equals(self, other: _Key) -> bool:
        return self.x is other.x and (self.product, self.with_graph) == (other.product, other.with_graph)


class SharedInput:
    """Layers of one input, such as an attention's query, key and value: the first call computes them all.

    The input is read once instead of once for each, forward and backward. Who reads the same input is not
    told by names: a layer whose output nobody asks for before the next input comes is by itself from then on.

    Args:
        layers: adapted ones with equally many inputs.
    """

    def __init__(self, layers: Sequence[MergedLoraLinear]) -> None:
        self._layers = list(layers)
        self._last: tuple[_Key | None, dict[MergedLoraLinear, Tensor]] = None, {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins without outputs."""
        return {**self.__dict__, "_last": (None, {})}

    def output(self, layer: MergedLoraLinear, x: Tensor, product: Product) -> Tensor:
        """One layer's (…, out) for (…, in)."""
        key = _Key(x, product, torch.is_grad_enabled())
        source, waiting = self._last
        found = waiting.pop(layer, None) if source is not None and source.equals(key) else None
        if found is None:
            self._part_from(waiting)
            found, waiting = self._compute(layer, x, product)
        self._last = (key, waiting) if waiting else (None, {})
        return found

    def _part_from(self, unasked: dict[MergedLoraLinear, Tensor]) -> None:
        for layer in unasked:
            layer.shared = None
            self._layers = [other for other in self._layers if other is not layer]

    def _compute(
        self, asked: MergedLoraLinear, x: Tensor, product: Product
    ) -> tuple[Tensor, dict[MergedLoraLinear, Tensor]]:
        layers = [layer for layer in self._layers if layer is asked or layer.is_plain()]
        if asked not in layers:  # parted from just now
            layers = [asked]
        made = multiply(product, x, [layer.adapted() for layer in layers], in_use(x.device))
        outputs = dict(zip(layers, made, strict=True))
        return outputs.pop(asked), outputs


def join_layers(model: nn.Module) -> None:
    """Lets the adapted layers of a module that have as many inputs be computed together."""
    for module in model.modules():
        by_inputs: dict[int | None, list[MergedLoraLinear]] = {}
        for child in module.children():
            if isinstance(child, MergedLoraLinear):
                by_inputs.setdefault(child.in_features, []).append(child)
        for layers in by_inputs.values():
            if len(layers) > 1:
                shared = SharedInput(layers)
                for layer in layers:
                    layer.shared = shared
