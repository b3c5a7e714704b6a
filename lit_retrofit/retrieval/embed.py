"""Embeds texts outside of training: for mining, evaluation, prediction and export checks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lit_retrofit.data.batching import make_micro_batches
from lit_retrofit.model.device import Precision, autocast_dtype, tokens_at_a_time
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.kept_weights import KeptWeights
from lit_retrofit.model.tokenizer import Role

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
"""Of the progress bars of embedding."""
_CHUNK = 16384  # texts tokenized and sorted by length at a time: bounds memory, keeps padding low


def embed_texts(
    encoder: Encoders,
    texts: Sequence[str],
    role: Role,
    *,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    description: str | None = None,
) -> Tensor:
    """Embeds texts with the role's prompt, each distinct text once, in micro-batches of similar length.

    Args:
        encoder: on the device to use; its training mode is restored afterwards. Of two, the role's is used.
        texts: without prompts.
        role: query or document.
        token_budget: padded tokens of a micro-batch; by default as many as suit the device.
        precision: fp32, or autocast to bf16 or fp16; auto is bf16 where the device multiplies it.
        description: shown beside a progress bar; no bar without it.

    Returns:
        (texts, dimension) float32 on the CPU.
    """
    encoder = encoder.of(role)
    token_budget = tokens_at_a_time(token_budget, encoder.device)
    unique = list(dict.fromkeys(texts))
    rows = {text: row for row, text in enumerate(unique)}
    embeddings = torch.empty(len(unique), encoder.dimension)
    training = encoder.training
    encoder.eval()
    try:
        with Progress(*COLUMNS, disable=description is None) as progress, KeptWeights().in_use():
            bar = progress.add_task(description or "", total=len(unique))
            for start in range(0, len(unique), _CHUNK):
                chunk = unique[start : start + _CHUNK]
                tokens = encoder.tokenizer(chunk, role)
                for micro_batch in make_micro_batches(tokens, encoder.tokenizer.pad_id, token_budget):
                    found = _embed(encoder, micro_batch.input_ids, micro_batch.attention_mask, precision)
                    embeddings[start + micro_batch.rows] = found
                    progress.advance(bar, len(found))
    finally:
        encoder.train(training)
    return embeddings if len(unique) == len(texts) else embeddings[[rows[text] for text in texts]]


@torch.inference_mode()
def _embed(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor, precision: Precision) -> Tensor:
    device = encoder.device
    dtype = autocast_dtype(precision, device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        return encoder(input_ids.to(device), attention_mask.to(device)).float().cpu()
