"""AdamW and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_retrofit.errors import UserError


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) with warm-up.

    Attributes:
        learning_rate: its peak. About 1e-3 for LoRA, 2e-5 for full fine-tuning.
        weight_decay: on matrices; biases, norms and the temperature are not decayed.
        warmup: share of the steps over which the rate rises to its peak.
        schedule: how it goes on after that: linear or cosine to zero, or constant.
    """

    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"

    @property
    def follows_the_steps(self) -> bool:
        """Whether the rate depends on how many steps the run has in all."""
        return self.schedule != "constant" or self.warmup > 0


def check_options(options: OptimizerOptions) -> None:
    """Checks ranges before anything slow begins.

    Raises:
        UserError: a value that cannot be meant.
    """
    if not options.learning_rate > 0:
        raise UserError(f"model.optimizer.learning_rate is {options.learning_rate}; it must be above 0")
    if not options.weight_decay >= 0:
        raise UserError(f"model.optimizer.weight_decay is {options.weight_decay}; it must not be negative")
    if not 0 <= options.warmup <= 1:
        raise UserError(f"model.optimizer.warmup is {options.warmup}; it is a share of the steps, 0 to 1")


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """Two groups of trainable parameters: matrices, decayed, and vectors and scalars, not decayed."""
    trainable = [p for p in parameters if p.requires_grad]
    matrices = [p for p in trainable if _decays(p)]
    others = [p for p in trainable if not _decays(p)]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _decays(parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2


def build_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions) -> AdamW:
    """AdamW over the trainable parameters."""
    return AdamW(parameter_groups(parameters, options.weight_decay), lr=options.learning_rate)


def build_schedule(optimizer: AdamW, options: OptimizerOptions, steps: int) -> LambdaLR:
    """A learning-rate schedule that is stepped once per optimizer step, `steps` times."""
    from transformers import get_scheduler

    name = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    return get_scheduler(name, optimizer, round(options.warmup * steps), steps)


def apply_options(optimizer: Optimizer, schedule: LambdaLR, options: OptimizerOptions) -> None:
    """Gives an optimizer and its schedule their rate and decay, wherever in the run they are.

    Torch's `load_state_dict` brings those of the checkpoint along with the moments and the number of steps.
    With the options that both were built with, this changes nothing.
    """
    schedule.base_lrs = [options.learning_rate] * len(optimizer.param_groups)
    rates = [schedule.base_lrs[0] * factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        decay = options.weight_decay if _decays(group["params"][0]) else 0.0
        group.update(lr=rate, initial_lr=options.learning_rate, weight_decay=decay)
    schedule._last_lr = rates
