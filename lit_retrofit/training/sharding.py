"""Weights split over the devices by torch's fully_shard, and what must know that they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lit_retrofit.model.lora import find_blocks


def shard(backbone: nn.Module, mesh: Any, replicated: set[nn.Parameter]) -> None:
    """Splits a backbone's weights along their first dimension, one group for each block and one for the rest.

    Args:
        backbone: a Hugging Face model, or peft's wrapper of one; it keeps the names of its weights.
        mesh: of one dimension, the devices to split over.
        replicated: parameters that stay whole on every device.
    """
    _, blocks = find_blocks(backbone)
    for module in (*blocks, backbone):
        # Gathered and let go of by `gathered` alone: see there.
        group: Any = fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=replicated)
        # The loss is the whole batch's on every device, so a gradient is the sum over them, not their mean.
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)
        group.set_reshard_after_backward(False)
        group.set_requires_gradient_sync(False)


def groups(module: nn.Module) -> list[FSDPModule]:
    """The parts of a module that are gathered together; none where nothing is split."""
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


def gather(module: nn.Module) -> None:
    """Puts the whole weights into the module until `let_go`. All devices must call it together.

    The forward and backward passes that follow send no weights, so their number may differ between devices.
    """
    # Weights made in inference mode could not be trained with afterwards.
    with torch.inference_mode(False), torch.no_grad():
        for group in groups(module):
            group.reshard()  # whole weights of before would be kept, and may be old
            group.unshard()


def let_go(module: nn.Module) -> None:
    """Puts this device's part of the weights back; gradients that were not added up are kept."""
    for group in groups(module):
        group.reshard()


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside, the module has its whole weights. All devices must enter it together."""
    gather(module)
    try:
        yield
    finally:
        let_go(module)


def add_up_next(module: nn.Module, add_up: bool) -> None:
    """Whether the next backward pass ends in adding the gradients up over the devices."""
    for group in groups(module):
        group.set_requires_gradient_sync(add_up, recurse=False)


def own_part(tensor: Tensor) -> Tensor:
    """What this device holds of a tensor, sharing its memory; all of it where it is not split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Splits a whole tensor as another one is split. Nothing is sent: every device has the whole one.

    Returns:
        On the device of `like`; the whole tensor where that is not split.
    """
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def whole_on_first(value: Any) -> Any:
    """The same values with nothing split, for the first process to save. All must call it.

    Args:
        value: a tensor, or dictionaries of tensors and other values.

    Returns:
        What was split lies on the CPU, on the first process; the others hold empty tensors in its place.
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor().detach()
        return whole.cpu() if dist.get_rank() == 0 else whole.new_empty(0, device="cpu")
    if isinstance(value, Mapping):
        return {key: whole_on_first(part) for key, part in value.items()}
    return value


def global_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients, of which some may be split. 0-d, equal on all devices."""
    gradients = list(gradients)
    split = [own_part(gradient) for gradient in gradients if isinstance(gradient, DTensor)]
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    parts = [torch.stack(torch._foreach_norm(of)).square().sum() for of in (split, whole) if of]
    if not parts:
        return torch.zeros(())
    if split:
        dist.all_reduce(parts[0])
    return torch.stack(parts).sum().sqrt()


def clip_by_norm(gradients: Iterable[Tensor], most: float) -> None:
    """Scales all gradients by one factor, so that their norm is at most this (arXiv 1211.5063)."""
    gradients = list(gradients)
    factor = (most / (global_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        own_part(gradient).mul_(factor)
