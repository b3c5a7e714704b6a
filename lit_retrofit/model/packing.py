"""Attention over texts laid end to end, without padding: every other layer then computes real tokens only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NAME = "packed"
"""What transformers calls this attention. Without a layout it is transformers' own sdpa."""

BASE = "sdpa"
"""The attention that `install` replaces."""

_IS_PACKED = ContextVar("_IS_PACKED", default=False)
_AS_ON_GPU = ContextVar("_AS_ON_GPU", default=False)
_HALVES = (torch.float16, torch.bfloat16)
# Position biases and capped logits change the scores in ways that are not computed here.
_CHANGES_SCORES = ("position_bias", "softcap", "s_aux")


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each text lies in a packed row.

    Attributes:
        lengths: tokens of each text, in order, for the CPU; None on a GPU, which it would have to wait for.
        starts: (texts + 1,) int32, first token of each text, and the end.
        longest: at least the most tokens of a text.
    """

    lengths: tuple[int, ...] | None
    starts: Tensor
    longest: int

    @classmethod
    def of(cls, attention_mask: Tensor) -> Layout:
        """The layout of a padded micro-batch's real tokens. (texts, length), 1 for a token."""
        lengths = attention_mask.sum(1)
        starts = nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        known = tuple(lengths.tolist()) if lengths.device.type == "cpu" else None
        return cls(known, starts, attention_mask.shape[1])


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a packed row; called by transformers for every layer.

    Args:
        module: the layer that asks.
        query: (1, heads, tokens, head dimension).
        key: (1, key heads, tokens, head dimension).
        value: like `key`.
        attention_mask: for the padded form alone.
        dropout: of the attention weights.
        scaling: of the scores; 1 / sqrt(head dimension) by default.
        packed: the layout, or None for a padded batch.
        **kwargs: what else the layer says of its attention.

    Returns:
        (1, tokens, heads, head dimension), and no weights.

    Raises:
        NotImplementedError: the layer wants something that cannot be computed on packed texts.
    """
    if packed is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    return _attend(module, query, key, value, packed, dropout, scaling, kwargs), None


@torch.compiler.disable  # a compiled block breaks here: the layout is another one in each micro-batch
def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: Layout,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> Tensor:
    wanted = [name for name in _CHANGES_SCORES if kwargs.get(name) is not None]
    causal = kwargs.get("is_causal")
    if wanted or (getattr(module, "is_causal", False) if causal is None else causal):
        raise NotImplementedError(f"attention over packed texts knows no {wanted or 'causal mask'}")
    # transformers counts the token itself: a window of w + 1 looks w tokens to either side
    window = None if kwargs.get("sliding_window") is None else kwargs["sliding_window"] - 1
    rows = [part.squeeze(0).transpose(0, 1) for part in (query, key, value)]
    if query.is_cuda:
        return _on_gpu(rows, packed, dropout, scaling, window).unsqueeze(0)
    if _AS_ON_GPU.get():
        _check_on_gpu(query.dtype, dropout)
    elif query.dtype in _HALVES:
        rows = [part.float() for part in rows]
    with torch.autocast("cpu", enabled=False):
        return _on_cpu(rows, packed, dropout, scaling, window).to(query.dtype).unsqueeze(0)


def _on_gpu(
    rows: list[Tensor], layout: Layout, dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    """Torch's variable-length attention. (tokens, heads, head dimension) each."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = rows
    _check_on_gpu(query.dtype, dropout)
    sides = (-1, -1) if window is None else (window, window)
    attended = varlen_attn(
        query, key, value, layout.starts, layout.starts, layout.longest, layout.longest,
        scale=scaling, window_size=sides, enable_gqa=key.shape[1] != query.shape[1],
    )  # fmt: skip
    assert isinstance(attended, Tensor)  # a tuple only where more is asked for
    return attended


def _check_on_gpu(dtype: torch.dtype, dropout: float) -> None:
    if dropout or dtype not in _HALVES:
        raise NotImplementedError("variable-length attention takes 16-bit numbers and no dropout")


def _on_cpu(
    rows: list[Tensor], layout: Layout, dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    """Texts of equal length lie side by side in a sorted micro-batch: one call for each length, no mask.

    In float32 where the layers around compute in 16 bits: torch's backward of bf16 attention takes nine times
    as long on a CPU (1.43 of the 4.0 seconds of a step of 64 pairs, against 0.16).
    """
    assert layout.lengths is not None
    runs = [(length, len(list(texts))) for length, texts in groupby(layout.lengths) if length]
    # One split and one cat: slices would each get a gradient of the whole row's size.
    parts = zip(*(part.split([length * texts for length, texts in runs]) for part in rows), strict=True)
    grouped = rows[0].shape[1] != rows[1].shape[1]
    made = []
    for (length, texts), group in zip(runs, parts, strict=True):
        query, key, value = (part.unflatten(0, (texts, length)).transpose(1, 2) for part in group)
        near = None
        if window is not None and length > window + 1:
            places = torch.arange(length)
            near = (places - places[:, None]).abs() <= window
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=near, dropout_p=dropout, scale=scaling, enable_gqa=grouped
        )
        made.append(attended.transpose(1, 2).flatten(0, 1))
    if len(made) == 1 and _AS_ON_GPU.get():  # nothing is put together there
        return made[0]
    return torch.cat(made)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """None for packed texts: for a row of T tokens it would be (1, 1, T, T), and nothing reads it."""
    from transformers.masking_utils import sdpa_mask

    return None if _IS_PACKED.get() else sdpa_mask(*args, **kwargs)


@contextmanager
def without_masks() -> Iterator[None]:
    """Inside, a backbone makes no attention masks."""
    with _turned_on(_IS_PACKED):
        yield


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Inside, a CPU keeps what a GPU would: texts are packed where they are there, and 16 bits stay 16."""
    with _turned_on(_AS_ON_GPU):
        yield


@contextmanager
def _turned_on(switch: ContextVar[bool]) -> Iterator[None]:
    before = switch.set(True)
    try:
        yield
    finally:
        switch.reset(before)


def register() -> None:
    """Makes the packed attention known to transformers in this process."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)


def install(backbone: Any) -> str | None:
    """Lets a Hugging Face model compute packed texts.

    Returns:
        None, or why it cannot: it does not take its attention from transformers' table. It is then as it was.
    """
    register()
    before = getattr(backbone.config, "_attn_implementation", None)
    if before != BASE:
        return f"the attention of {type(backbone).__name__} is {before or 'its own'}, not {BASE}"
    backbone.set_attn_implementation(NAME)
    return None


def positions(attention_mask: Tensor, first: int) -> Tensor:
    """(tokens,) int64 position of every real token within its text, counted from `first`."""
    return (attention_mask.cumsum(1) - 1)[attention_mask.bool()] + first


def unpack(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """(texts, length, dimension) padded with zeros, of (tokens, dimension) packed."""
    padded = hidden.new_zeros(attention_mask.numel(), hidden.shape[-1])
    # Whole rows: 3 ms there and back for 4,096 tokens, where masked_scatter looks at every number: 17 ms.
    padded.index_copy_(0, attention_mask.flatten().nonzero().squeeze(1), hidden)
    return padded.view(*attention_mask.shape, -1)
