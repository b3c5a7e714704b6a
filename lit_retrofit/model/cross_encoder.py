"""Cross-encoders: models that read a query and a document together and give one score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import Precision, autocast_dtype
from lit_retrofit.model.source import resolve_model


class CrossEncoder:
    """Scores pairs of query and document by a sequence classifier with one output.

    Args:
        name: a hub name or a directory, in the layout of sentence-transformers or of transformers.
        device: to compute on.
        precision: fp32, or autocast to bf16 or fp16; auto is bf16 where the device multiplies it.
        max_length: tokens kept of query and document together; the model's own by default.
        token_budget: padded tokens scored at a time, for texts of full length; by default 16384.

    Attributes:
        backend: sentence-transformers' model.
        dtype: of autocast; None for float32.

    Raises:
        UserError: no such model, or it is no cross-encoder with one output.
    """

    def __init__(
        self,
        name: str,
        *,
        device: torch.device,
        precision: Precision = "auto",
        max_length: int | None = None,
        token_budget: int | None = None,
    ) -> None:
        self._device = device
        self.dtype = autocast_dtype(precision, device)
        self.backend = _load(name, device, max_length)
        budget = 16384 if token_budget is None else token_budget
        self._batch_size = max(1, budget // min(self.backend.max_length or 512, 8192))

    def scores(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """(pairs,) float32 on the CPU: the classifier's output (a logit), larger is more relevant.

        Args:
            pairs: query and document, without prompts.
        """
        if not pairs:
            return torch.empty(0)
        with torch.autocast(self._device.type, dtype=self.dtype, enabled=self.dtype is not None):
            scores = self.backend.predict(
                pairs,  # it sorts them by length
                batch_size=self._batch_size,
                activation_fn=nn.Identity(),
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        return scores.float().cpu()


def _load(name: str, device: torch.device, max_length: int | None) -> Any:
    from safetensors import SafetensorError
    from sentence_transformers import CrossEncoder as Backend
    from transformers import AutoConfig

    source = resolve_model(name)
    try:
        config = AutoConfig.from_pretrained(source)
        kinds = config.architectures or []
        # Of a base model the classifier would silently start from random weights.
        if not any(kind.endswith("ForSequenceClassification") for kind in kinds) or config.num_labels != 1:
            raise UserError(
                f"{name}: {', '.join(kinds) or 'unknown'} with {config.num_labels} labels is no "
                "cross-encoder; give a sequence classifier with one output, or an embedding model as teacher"
            )
        model = Backend(source, device=str(device), max_length=max_length)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name}: cannot be loaded as a cross-encoder ({reason}); check the name and the connection, or "
            "give a directory"
        ) from error
    model.eval()
    return model
