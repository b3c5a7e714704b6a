"""Low-rank adapters (Hu et al., arXiv 2106.09685) through peft."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lit_retrofit.errors import UserError


@dataclass(frozen=True)
class LoraOptions:
    """Adapters on the linear layers of the transformer blocks.

    Attributes:
        r: rank.
        alpha: the update is scaled by alpha / r.
        dropout: on the adapters' input.
        targets: names of the linear layers that get one; by default every linear layer inside the
            blocks, whatever the architecture calls them.
        top_layers: adapt only this many blocks from the top. The backward pass then ends there, which
            saves the time of the blocks below; all blocks by default.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None
    top_layers: int | None = None


def find_blocks(backbone: nn.Module) -> tuple[str, nn.ModuleList]:
    """The repeated transformer blocks: the longest ModuleList, with its name."""
    lists = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise UserError(f"{type(backbone).__name__} has no list of blocks; name the layers with lora.targets")
    return max(lists, key=lambda pair: len(pair[1]))


def find_targets(backbone: nn.Module) -> list[str]:
    """Names, relative to a block, of every linear layer (``attention.self.query``, …)."""
    _, blocks = find_blocks(backbone)
    return sorted({name for block in blocks for name, m in block.named_modules() if isinstance(m, nn.Linear)})


def add_lora(backbone: nn.Module, options: LoraOptions) -> nn.Module:
    """Wraps the backbone; only the adapters stay trainable.

    Raises:
        UserError: an option is out of range, or a target does not exist.
    """
    from peft import LoraConfig, get_peft_model

    from lit_retrofit.model.merged_lora import MergedLoraLinear

    if options.r < 1:
        raise UserError(f"lora.r is {options.r}; the rank must be at least 1")
    if not 0 <= options.dropout < 1:
        raise UserError(f"lora.dropout is {options.dropout}; it must be from 0 to below 1")
    targets = options.targets or find_targets(backbone)
    known = {name for name, m in backbone.named_modules() if isinstance(m, nn.Linear)}
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in known):
            raise UserError(
                f"lora.targets: no linear layer is called '{target}'; there are {find_targets(backbone)}"
            )
    prefix, blocks = find_blocks(backbone)
    chosen: dict = {}
    if options.top_layers is not None:
        if not 1 <= options.top_layers <= len(blocks):
            raise UserError(
                f"lora.top_layers: {options.top_layers} of {len(blocks)} blocks; give 1 to {len(blocks)}"
            )
        chosen = {
            "layers_to_transform": list(range(len(blocks) - options.top_layers, len(blocks))),
            "layers_pattern": prefix.rsplit(".", 1)[-1],
        }
    config = LoraConfig(
        r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets, **chosen
    )
    config._register_custom_module(
        {nn.Linear: MergedLoraLinear}
    )  # peft's way to give it a layer of one's own
    return get_peft_model(backbone, config)
