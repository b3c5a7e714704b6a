"""Which weights of a backbone are trained, and how its blocks are computed in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.lora import add_lora, find_blocks

if TYPE_CHECKING:
    from lit_retrofit.model.encoder import EncoderOptions


def make_trainable(backbone: Any, options: EncoderOptions) -> Any:
    """Freezes what the options keep as it is, and adds their adapters."""
    if options.freeze:
        if options.lora is not None:
            raise UserError("freeze trains nothing and lora trains adapters; give one of them")
        backbone.requires_grad_(False)
    if options.freeze_embeddings:
        backbone.get_input_embeddings().requires_grad_(False)
    if options.freeze_layers:
        freeze_layers(backbone, options.freeze_layers)
    # Unused by every pooling here; left trainable, it would wait for a gradient that never comes.
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler.requires_grad_(False)
    adapted = backbone
    if options.lora is not None:
        adapted = add_lora(backbone, options.lora)
        # A checkpointed block must compute again what it computed: layers must not part in between.
        if not options.gradient_checkpointing:
            from lit_retrofit.model.merged_lora import join_layers  # peft takes a second and a half to import

            join_layers(adapted)
    if options.gradient_checkpointing:
        # After peft, and undone: both libraries let the embeddings require a gradient, for reentrant
        # checkpoints' sake, and the backward pass would go down through all that is frozen.
        backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        backbone.disable_input_require_grads()
    return adapted


def compile_blocks(backbone: Any) -> None:
    """Compiles the blocks one by one, for any shape.

    They share what is compiled, so it takes the time of one block (torch's "regional compilation"), and what
    surrounds them, the attention over packed texts for one, changes with the texts and would be compiled anew
    for each micro-batch.
    """
    _, blocks = find_blocks(backbone)
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)


def freeze_layers(backbone: Any, count: int) -> None:
    """Freezes the lowest blocks and all that comes before them."""
    name, blocks = find_blocks(backbone)
    if not 0 <= count < len(blocks):
        raise UserError(f"freeze_layers: {count} of {len(blocks)} blocks; give 0 to {len(blocks) - 1}")
    for parameter_name, parameter in backbone.named_parameters():
        if parameter_name.startswith(f"{name}.{count}."):
            return
        parameter.requires_grad_(False)
