"""Training with weights, gradients and optimizer state split over the devices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lit_retrofit.errors import UserError
from lit_retrofit.training.sharding import add_up_next, gather, groups, let_go, part_of, shard, whole_on_first
from lit_retrofit.training.strategy import AddsUpOnce, add_up_gradients, trainable

NAME = "sharded"
"""For `--trainer.strategy`."""


class ShardedStrategy(AddsUpOnce, ModelParallelStrategy):
    """Lightning's ModelParallelStrategy, with one exchange of weights and one of gradients per step.

    Between steps each device holds its part of the weights and of the optimizer's state. A step begins by
    gathering the weights and ends by adding the gradients up, after which each device has its part of them
    and updates its part of the weights. Micro-batches in between send nothing: their number may differ
    between devices, and so may how many of them keep their graphs.

    Checkpoints are those of one device: whole tensors in one file, written by the first process.

    Args:
        timeout: a process that does not answer for so long ends the others.
    """

    def __init__(self, timeout: timedelta | None = default_pg_timeout) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        """All devices share one copy of the model."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def check(self, module: Any) -> None:
        """Refuses what cannot be right with split weights.

        Raises:
            UserError: an option that does not go with this strategy.
        """
        trainer = module.trainer
        refused = None
        if len(module.encoder.parts) > 1:
            refused = "model.document_encoder: gradients are added up at one encoder's last micro-batch alone"
        if any(part.options.compile for part in module.encoder.parts):
            refused = "model.encoder.compile: a compiled model does not see weights come and go; set it false"
        if trainer.precision == "16-mixed":
            refused = "precision 16-mixed, whose loss scale needs the whole gradient; set bf16-mixed"
        if trainer.gradient_clip_algorithm == "value":
            refused = "clipping by value; leave trainer.gradient_clip_algorithm out to clip by the norm"
        if refused:
            raise UserError(f"trainer.strategy {NAME} does not go with {refused}")

    def split(self, module: Any) -> None:
        """Splits the encoder's weights; called by the module's `configure_model`.

        With adapters, they are all that is trained and small: they stay whole, as does what the objective
        trains.
        """
        if groups(module):
            return
        for parameter in trainable(module):
            first = parameter.data.to(self.root_device)
            dist.broadcast(first, 0)
            parameter.data.copy_(first)
        adapters = set() if module.encoder.options.lora is None else set(trainable(module))
        shard(module.encoder.backbone, self.device_mesh["data_parallel"], adapters)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The whole weights, for both passes over the step's micro-batches."""
        gather(self._module)

    def before_last_backward(self) -> None:
        """The next backward pass is the step's last: it ends in adding the gradients up."""
        add_up_next(self._module, not self._blocked)

    def post_backward(self, closure_loss: Tensor) -> None:
        """This device's part again. What is trained but not split is added up here."""
        add_up_next(self._module, False)
        let_go(self._module)
        if not self._blocked:
            add_up_gradients(p for p in trainable(self._module) if not isinstance(p, DTensor))

    def on_validation_start(self) -> None:
        """The whole weights, for any number of micro-batches."""
        gather(self._module)

    def on_validation_end(self) -> None:
        """This device's part again."""
        let_go(self._module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained weights, whole, on the first process; a frozen base is not put together for nothing."""
        let_go(self._module)
        trained = {name: p.detach() for name, p in self._module.named_parameters() if p.requires_grad}
        state: dict[str, Any] = whole_on_first(trained)
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole on the first process, and keyed as on one device."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state: dict[str, Any] = whole_on_first(plain.state_dict())
        return state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The file's content, whole: the two methods below take this device's part of it."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are restored before the optimizer and the callbacks begin, as with every other strategy."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """The Trainer hands the optimizer's state to `load_optimizer_state_dict`."""
        return True

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Takes this device's part of the trained weights; the module has checked that they fit."""
        let_go(self._module)
        for name, parameter in self._module.named_parameters():
            if name in checkpoint["state_dict"]:
                parameter.copy_(part_of(checkpoint["state_dict"][name].to(parameter.dtype), parameter))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes this device's part of the optimizer's state."""
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {
                    name: part_of(value, parameters[number]) if _is_like(value, parameters[number]) else value
                    for name, value in values.items()
                }
                for number, values in whole["state"].items()
            }
            optimizer.load_state_dict({**whole, "state": state})

    @property
    def _module(self) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module


StrategyRegistry.register(
    NAME, ShardedStrategy, description="weights, gradients and optimizer state are split"
)


def _is_like(value: object, parameter: Tensor) -> bool:
    """A moment of AdamW has its parameter's shape; its count of steps has none."""
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0
