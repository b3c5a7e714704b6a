"""The only caching engine: exact large-batch gradients in bounded memory.

Gradient caching (Gao et al., arXiv 2101.06983) embeds a step's micro-batches without a graph, computes
the loss over all embeddings, and embeds them again, micro-batch by micro-batch, to propagate the
cached gradient. Here as many micro-batches as a budget allows keep their graph, and only the rest is
embedded twice: with room for all it is plain training, with room for none it is gradient caching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_retrofit.data.batching import TokenBatch

Encode = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RandomState:
    """The generators that dropout draws from: the CPU's and the device's."""

    cpu: Tensor
    device: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """Takes a snapshot."""
        on_gpu = device.type == "cuda"
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None)

    def restore(self, device: torch.device) -> None:
        """Goes back to the snapshot."""
        torch.set_rng_state(self.cpu)
        if self.device is not None:
            torch.cuda.set_rng_state(self.device, device)


class CachedEmbeddings:
    """The embeddings of one step's texts, and what is needed to send their gradient back.

    Args:
        encode: (input_ids, attention_mask) → (texts, dimension).
        micro_batches: together they hold every row once.
        texts: how many rows.
        kept_tokens: padded tokens whose graphs may be kept; the rest is embedded again in `backward`.

    Attributes:
        leaf: (texts, dimension) float32. Compute the loss on it and call `loss.backward()` (or
            whatever scales and divides the loss), then `backward()` of this object.
        recomputed_tokens: padded tokens that `backward` embeds a second time.
    """

    def __init__(
        self, encode: Encode, micro_batches: Sequence[TokenBatch], texts: int, kept_tokens: int
    ) -> None:
        self._encode = encode
        self._pending: list[tuple[TokenBatch, Tensor | RandomState]] = []
        self.recomputed_tokens = 0
        leaf = None
        for micro_batch in micro_batches:
            size = micro_batch.input_ids.numel()
            keep = torch.is_grad_enabled() and size <= kept_tokens
            embeddings = self._embed(micro_batch, keep)
            kept_tokens -= size if keep else 0
            if leaf is None:
                leaf = embeddings.new_empty((texts, embeddings.shape[1]))
            leaf.index_copy_(0, micro_batch.rows, embeddings.detach())
        if leaf is None:
            raise ValueError("micro_batches is empty: there is nothing to embed")
        self.leaf = leaf.requires_grad_(torch.is_grad_enabled())

    def _embed(self, micro_batch: TokenBatch, keep: bool) -> Tensor:
        if not torch.is_grad_enabled():
            return self._encode(micro_batch.input_ids, micro_batch.attention_mask)
        if keep:
            embeddings = self._encode(micro_batch.input_ids, micro_batch.attention_mask)
            self._pending.append((micro_batch, embeddings))
            return embeddings
        state = RandomState.capture(micro_batch.input_ids.device)
        self._pending.append((micro_batch, state))
        self.recomputed_tokens += micro_batch.input_ids.numel()
        with torch.no_grad():
            return self._encode(micro_batch.input_ids, micro_batch.attention_mask)

    def backward(self, context: Callable[[], AbstractContextManager] = nullcontext) -> None:
        """Sends the leaf's gradient through the encoder. Frees each graph as it goes.

        Args:
            context: entered around each second embedding; give the autocast of the first.

        Raises:
            RuntimeError: before `loss.backward()`, or a second time.
        """
        if self.leaf.grad is None or not self._pending:
            raise RuntimeError("call loss.backward() once before CachedEmbeddings.backward()")
        gradient, self.leaf.grad = self.leaf.grad, None
        after = RandomState.capture(gradient.device)
        while self._pending:
            micro_batch, held = self._pending.pop()
            if isinstance(held, RandomState):
                held.restore(gradient.device)
                with context():
                    embeddings = self._encode(micro_batch.input_ids, micro_batch.attention_mask)
            else:
                embeddings = held
            if embeddings.requires_grad:
                embeddings.backward(gradient[micro_batch.rows].to(embeddings.dtype))
        after.restore(gradient.device)
