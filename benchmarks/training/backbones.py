"""What every implementation does to its batch and its backbone, so that they compute the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_retrofit.data.batching import RetrievalBatch
from lit_retrofit.model.lora import find_blocks


def padded(batch: RetrievalBatch, pad_id: int) -> tuple[Tensor, Tensor]:
    """(texts, length) token ids and mask of all texts of a batch, in their order."""
    widest = max(part.input_ids.shape[1] for part in batch.micro_batches)
    ids = torch.full((batch.texts, widest), pad_id)
    mask = torch.zeros_like(ids)
    for part in batch.micro_batches:
        ids[part.rows, : part.input_ids.shape[1]] = part.input_ids
        mask[part.rows, : part.input_ids.shape[1]] = part.attention_mask
    return ids, mask


def cut(backbone: Any, layers: int | None) -> None:
    """Keeps the lowest blocks only."""
    if layers is not None:
        _, blocks = find_blocks(backbone)
        del blocks[layers:]


@torch.no_grad()
def set_adapters(backbone: nn.Module) -> None:
    """The same adapters for all, and none of them zero, which would hide half of the gradient."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(backbone.named_parameters()):
        if ".lora_" in name:
            parameter.normal_(std=0.02, generator=generator)


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that an optimizer gets."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def gradients_of(backbone: nn.Module) -> dict[str, Tensor]:
    """Gradients of a backbone's adapters; the names do not depend on what is around it."""
    return {
        name: parameter.grad.clone()
        for name, parameter in backbone.named_parameters()
        if parameter.grad is not None
    }
