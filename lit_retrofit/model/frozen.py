"""The lowest blocks of a backbone, where nothing is trained: their output is computed once per text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from lit_retrofit.model.lora import find_blocks


@dataclass
class Recorded:
    """What the last frozen block returned, and what the caller noted at that moment.

    Attributes:
        output: of the last frozen block; None until it has run.
        note: of the caller, for instance the random state.
    """

    output: Any = None
    note: Any = None


class FrozenPrefix:
    """Runs the frozen blocks once, and lets later passes over the same texts begin after them.

    Args:
        blocks: the frozen ones, in order; their forward is wrapped, which changes no name of a weight.
        width: numbers that a token's state has.

    Attributes:
        token_bytes: that the output takes for each token, in float32.
    """

    def __init__(self, blocks: Sequence[nn.Module], width: int) -> None:
        self.token_bytes = 4 * width
        self._recording: tuple[Recorded, Callable[[], Any]] | None = None
        self._replaying: tuple[Recorded, Callable[[Any], None]] | None = None
        for block in blocks:
            block.forward = self._wrap(block.forward, last=block is blocks[-1])

    @classmethod
    def of(cls, backbone: Any) -> FrozenPrefix | None:
        """The frozen blocks of a backbone, or None where training begins at its first block or before it."""
        name, blocks = find_blocks(backbone)
        for parameter_name, parameter in backbone.named_parameters():
            if parameter_name.startswith(f"{name}.0."):
                break
            if parameter.requires_grad:
                return None
        frozen = []
        for block in blocks:
            if any(parameter.requires_grad for parameter in block.parameters()):
                break
            frozen.append(block)
        return cls(frozen, backbone.config.hidden_size) if frozen else None

    @contextmanager
    def recording(self, note: Callable[[], Any]) -> Iterator[Recorded]:
        """Inside, one forward pass is recorded. `note` is called when the frozen blocks are through."""
        recorded = Recorded()
        self._recording = recorded, note
        try:
            yield recorded
        finally:
            self._recording = None

    @contextmanager
    def replaying(self, recorded: Recorded, resume: Callable[[Any], None]) -> Iterator[None]:
        """Inside, one forward pass begins after the frozen blocks. `resume` is then called with the note."""
        self._replaying = recorded, resume
        try:
            yield
        finally:
            self._replaying = None

    def _wrap(self, forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self._replaying is not None:
                recorded, resume = self._replaying
                if last:
                    resume(recorded.note)
                return recorded.output
            output = forward(*args, **kwargs)
            if last and self._recording is not None:
                recorded, note = self._recording
                recorded.output, recorded.note = output, note()
            return output

        return wrapped
