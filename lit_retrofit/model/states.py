"""A backbone's token states of a micro-batch: without padding where backbone and device allow it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from lit_retrofit.model import packing
from lit_retrofit.model.device import is_out_of_memory

log = logging.getLogger(__name__)

_PROBE_LENGTHS = (11, 3)
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Relative distance of packed from padded states; a wrong position or neighbour makes it about one."""


class TokenStates:
    """Computes last hidden states, packed or padded.

    Whether packed texts work is not told by names of architectures: they are tried once for each device, type
    and mode on two short texts, and taken where they agree with the padded form. Where they do not, one line
    of the log says why.

    Args:
        backbone: a Hugging Face model; its attention is replaced by one that also takes packed texts.
        first_position: of a text, as the backbone counts (`padding_idx` + 1 in the RoBERTa family).
    """

    def __init__(self, backbone: Any, first_position: int) -> None:
        self.first_position = first_position
        self._not_installed = packing.install(backbone)
        self._objections: dict[tuple[str, torch.dtype, bool], str | None] = {}
        self._said: set[str] = set()

    def __call__(self, backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(texts, length, dimension); what stands at padding means nothing.

        Args:
            backbone: the one given at first, possibly with adapters around it.
            input_ids: (texts, length) int64.
            attention_mask: (texts, length), 1 for a token.
        """
        if self.packs(backbone, input_ids.device):
            return self._packed(backbone, input_ids, attention_mask)
        return _padded(backbone, input_ids, attention_mask)

    def packs(self, backbone: Any, device: torch.device) -> bool:
        """Whether micro-batches are computed without padding on this device, in the present type and mode.

        Raises:
            RuntimeError: memory ran out in trying.
        """
        half = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if half else next(backbone.parameters()).dtype
        kind = device.type, dtype, bool(backbone.training)
        if kind not in self._objections:
            objection = self._not_installed or self._disagreement(backbone, device, dtype)
            self._objections[kind] = objection
            self._say(objection)
        return self._objections[kind] is None

    def _say(self, objection: str | None) -> None:
        """Once for each reason: training, validation and export may ask in different modes."""
        if objection is not None and objection not in self._said:
            self._said.add(objection)
            log.warning("texts are padded, which takes longer than laying them end to end: %s", objection)

    def _packed(self, backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with packing.without_masks():
            states = backbone(
                input_ids=input_ids[attention_mask.bool()].unsqueeze(0),
                position_ids=packing.positions(attention_mask, self.first_position).unsqueeze(0),
                packed=packing.Layout.of(attention_mask),
            ).last_hidden_state
        return packing.unpack(states.squeeze(0), attention_mask)

    @torch.no_grad()
    def _disagreement(self, backbone: Any, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why packed texts cannot be taken, in one line; None where their states are those of padded ones."""
        lengths = torch.tensor(_PROBE_LENGTHS, device=device)
        mask = (torch.arange(max(_PROBE_LENGTHS), device=device) < lengths[:, None]).long()
        ids = 5 + torch.arange(mask.numel(), device=device).view_as(mask) % 40
        training = backbone.training
        try:
            # Uncompiled: compiling for two texts takes as long as for all those of training.
            with torch.compiler.set_stance("force_eager"):
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    self._packed(backbone, ids, mask)  # in the present mode: some attentions refuse dropout
                backbone.eval()
                made, expected = (
                    states(ids, mask)[mask.bool()].float()
                    for states in (
                        lambda *batch: self._packed(backbone, *batch),
                        lambda *batch: _padded(backbone, *batch),
                    )
                )
        except (NotImplementedError, TypeError, ValueError, RuntimeError, ImportError) as error:
            if is_out_of_memory(error):
                raise
            return " ".join(str(error).split())[:200] or type(error).__name__
        finally:
            backbone.train(training)
        distance = float((made - expected).norm() / expected.norm())
        if distance < _TOLERANCE.get(dtype, 1e-4):
            return None
        return f"{backbone.config.model_type} computes other states of them ({distance:.0%} away)"


def _padded(backbone: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    return backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
