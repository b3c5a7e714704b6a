"""The only caching engine: exact large-batch gradients in bounded memory.

Gradient caching (Gao et al., arXiv 2101.06983) embeds a step's micro-batches without a graph, computes
the loss over all embeddings, and embeds them again, micro-batch by micro-batch, to propagate the
cached gradient. Here as many micro-batches as a budget allows keep their graph, and only the rest is
embedded twice: with room for all it is plain training, with room for none it is gradient caching.
Those embedded last keep theirs, and give it back first: what is embedded again comes after it, not on top
of it, unless the first graph let too little be expected of the later ones.
The order of every sum is the same for every budget, and so, to the last bit, is the gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_retrofit.data.batching import Role, TokenBatch
from lit_retrofit.model.cheap_layers import CheapLayers
from lit_retrofit.model.device import is_out_of_memory
from lit_retrofit.model.frozen import FrozenPrefix, Recorded
from lit_retrofit.model.kept_weights import KeptWeights
from lit_retrofit.training.graph_budget import GraphBudget, GraphSize

Encode = Callable[[TokenBatch], Tensor]


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


@dataclass
class _Embedded:
    """A micro-batch and what its second pass begins with.

    Attributes:
        micro_batch: the texts.
        state: the random state before it.
        embeddings: with their graph, while it is kept.
        graph_bytes: of that graph.
        frozen: the output of the frozen blocks, where it is kept.
    """

    micro_batch: TokenBatch
    state: RandomState
    embeddings: Tensor | None = None
    graph_bytes: int = 0
    frozen: Recorded | None = None


class CachedEmbeddings:
    """The embeddings of one step's texts, and what is needed to send their gradient back.

    Args:
        encode: a micro-batch → (texts, dimension).
        micro_batches: together they hold every row once.
        texts: how many rows.
        budget: bytes of graphs that may be kept; the rest is embedded again in `backward`, when they are
            gone.
        parameters: that `encode` trains.
        prefixes: by role of the micro-batches the encoder's frozen blocks; run once if their output takes at
            most half of the budget.
        cheap: by role the encoder's layers whose output a graph need not keep.
        frozen: roles whose encoder learns nothing: embedded once, without a graph.

    Attributes:
        leaf: (texts, dimension) float32. Compute the loss on it and call `loss.backward()` (or
            whatever scales and divides the loss), then `backward()` of this object.
        kept_bytes: of the graphs that are kept.
        recomputed_tokens: padded tokens that `backward` embeds a second time, or has; more if memory ran out.
    """

    def __init__(
        self,
        encode: Encode,
        micro_batches: Sequence[TokenBatch],
        texts: int,
        budget: GraphBudget,
        parameters: Iterable[nn.Parameter],
        prefixes: Mapping[Role | None, FrozenPrefix] | None = None,
        cheap: Mapping[Role | None, CheapLayers] | None = None,
        frozen: Container[Role | None] = (),
    ) -> None:
        self._encode = encode
        self._budget = budget
        self._parameters = list(parameters)
        self._weights = frozenset(p.untyped_storage().data_ptr() for p in self._parameters)
        self._pending: list[_Embedded] = []
        self._bytes_per_token: dict[Role | None, float] = {}
        self._prefixes = dict(prefixes or {})
        self._cheap = dict(cheap or {})
        self._frozen = frozen
        self._made_weights = KeptWeights()  # of the weights as they are in this step
        self._limit = self._room_for_graphs(micro_batches)
        tokens_of = _count_tokens(micro_batches)
        self._to_come: Counter[Role | None] = Counter()
        for micro_batch, tokens in zip(micro_batches, tokens_of, strict=True):
            self._to_come[micro_batch.role] += tokens
        self._largest_graph = 0
        self._on_cpu = all(micro_batch.input_ids.device.type == "cpu" for micro_batch in micro_batches)
        self.kept_bytes = 0
        self._recomputed = 0
        leaf = None
        for micro_batch, tokens in zip(micro_batches, tokens_of, strict=True):
            with self._made_weights.in_use():
                embeddings = self._embed(micro_batch, tokens)
            self._to_come[micro_batch.role] -= tokens
            if leaf is None:
                leaf = embeddings.new_empty((texts, embeddings.shape[1]))
            leaf.index_copy_(0, micro_batch.rows, embeddings)
            self._give_back()
        if leaf is None:
            raise ValueError("micro_batches is empty: there is nothing to embed")
        self.leaf = leaf.requires_grad_(torch.is_grad_enabled())

    @property
    def recomputed_tokens(self) -> int:
        """Padded tokens whose graphs are not kept, or were not when `backward` began for the last time."""
        if not self._pending:
            return self._recomputed
        lost = (step.micro_batch for step in self._pending if step.embeddings is None)
        return sum(micro_batch.input_ids.numel() for micro_batch in lost)

    @property
    def may_release(self) -> bool:
        """Whether running out of memory is still answered by `release`: on trial, with graphs kept."""
        return self._budget.on_trial and any(step.embeddings is not None for step in self._pending)

    def release(self) -> None:
        """Lets go of all that is kept after memory ran out, and lowers the budget for all steps to come."""
        self._budget.lower(self.kept_bytes)
        for step in self._pending:
            step.embeddings = step.frozen = None
        self.kept_bytes = self._limit = 0
        self._prefixes = {}
        self._made_weights.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _room_for_graphs(self, micro_batches: Sequence[TokenBatch]) -> int:
        """Bytes; the frozen blocks' output comes first, for it saves more time per byte than a graph."""
        if not micro_batches or not torch.is_grad_enabled():
            return 0
        limit = self._budget.limit(micro_batches[0].input_ids.device)
        outputs = sum(
            micro_batch.input_ids.numel() * self._prefixes[micro_batch.role].token_bytes
            for micro_batch in micro_batches
            if micro_batch.role in self._prefixes and micro_batch.role not in self._frozen
        )
        if outputs > limit / 2:
            self._prefixes = {}
            return limit
        return limit - outputs

    def _embed(self, micro_batch: TokenBatch, tokens: int) -> Tensor:
        if not torch.is_grad_enabled():
            return self._encode(micro_batch)
        if micro_batch.role in self._frozen:
            with torch.no_grad():
                return self._encode(micro_batch)
        device = micro_batch.input_ids.device
        step = _Embedded(micro_batch, RandomState.capture(device))
        self._pending.append(step)
        if self._fits(micro_batch.role, tokens):
            embeddings = self._try_with_graph(step, tokens)
            if embeddings is not None:
                return embeddings.detach()
            step.state.restore(device)
        with torch.no_grad():
            return self._first(step)

    def _first(self, step: _Embedded) -> Tensor:
        """The first pass over a micro-batch, which notes what the frozen blocks made of it."""
        prefix = self._prefixes.get(step.micro_batch.role)
        if prefix is None:
            return self._encode(step.micro_batch)
        device = step.micro_batch.input_ids.device
        with prefix.recording(lambda: RandomState.capture(device)) as step.frozen:
            return self._encode(step.micro_batch)

    def _fits(self, role: Role | None, tokens: int) -> bool:
        """Whether this graph fits, and all to come with it; a role's first one is tried.

        Once one is kept, the others are taken one by one: they were expected to fit.
        """
        known = self._bytes_per_token
        if role not in known:
            return self._limit > 0
        coming = Counter({role: tokens}) if self.kept_bytes else self._to_come
        most = max(known.values())
        learning = (each for each in coming if each not in self._frozen)
        expected = sum(known.get(each, most) * coming[each] for each in learning)
        return self.kept_bytes + expected <= self._limit

    def _try_with_graph(self, step: _Embedded, tokens: int) -> Tensor | None:
        """Embeddings, their graph kept if it fits; None if memory ran out."""
        role = step.micro_batch.role
        try:
            with GraphSize(self._weights, self._cheap.get(role)) as size:
                embeddings = self._first(step)
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) and self._budget.on_trial):
                raise
        else:
            self._bytes_per_token[role] = size.bytes / max(tokens, 1)
            self._largest_graph = max(self._largest_graph, size.bytes)
            if self.kept_bytes + size.bytes <= self._limit and self._fits(role, tokens):
                step.embeddings, step.graph_bytes, step.frozen = embeddings, size.bytes, None
                self.kept_bytes += size.bytes
            return embeddings
        self.release()  # here, where the error no longer holds on to what was computed
        return None

    def backward(
        self,
        context: Callable[[], AbstractContextManager] = nullcontext,
        before_last: Callable[[], None] | None = None,
    ) -> None:
        """Sends the leaf's gradient through the encoder. Frees each graph as it goes.

        Args:
            context: entered around each second embedding; give the autocast of the first.
            before_last: called before the last micro-batch's backward: the place to let a distributed
                strategy synchronise the gradients, once.

        Raises:
            RuntimeError: before `loss.backward()`, or a second time.
        """
        if self.leaf.grad is None or not self._pending:
            raise RuntimeError("call loss.backward() once before CachedEmbeddings.backward()")
        gradient, self.leaf.grad = self.leaf.grad, None
        after = RandomState.capture(gradient.device)
        with self._made_weights.in_use():
            while not self._try_backward(gradient, context, before_last):
                self.release()
        self._made_weights.clear()
        after.restore(gradient.device)
        self._pending = []
        self._budget.end_step(self.kept_bytes)

    def _try_backward(
        self,
        gradient: Tensor,
        context: Callable[[], AbstractContextManager],
        before_last: Callable[[], None] | None,
    ) -> bool:
        """False if memory ran out: gradients are then as they were."""
        trial = self.may_release
        self._recomputed = self.recomputed_tokens
        before = [None if p.grad is None else p.grad.clone() for p in self._parameters] if trial else []
        synchronising = False
        try:
            for number in reversed(range(len(self._pending))):
                embeddings = self._again(self._pending[number], context)
                if number == 0 and before_last is not None:
                    synchronising = True
                    before_last()
                rows = self._pending[number].micro_batch.rows
                if embeddings.requires_grad:
                    embeddings.backward(gradient[rows].to(embeddings.dtype))
                self._give_back()
                if not trial:
                    self._pending.pop()
        except (RuntimeError, MemoryError) as error:
            if synchronising or not (trial and is_out_of_memory(error)):
                raise
        else:
            return True
        for parameter, saved in zip(self._parameters, before, strict=True):
            parameter.grad = saved
        return False

    def _again(self, step: _Embedded, context: Callable[[], AbstractContextManager]) -> Tensor:
        """The micro-batch's embeddings with their graph: the kept one, or computed anew."""
        if step.embeddings is not None:
            embeddings, step.embeddings = step.embeddings, None
            return embeddings
        device = step.micro_batch.input_ids.device
        step.state.restore(device)
        role = step.micro_batch.role
        with context(), GraphSize(self._weights, self._cheap.get(role)) as size:
            embeddings = self._encode_again(step)
        self._largest_graph = max(self._largest_graph, size.bytes)
        return embeddings

    def _encode_again(self, step: _Embedded) -> Tensor:
        prefix = self._prefixes.get(step.micro_batch.role)
        if step.frozen is None or prefix is None:
            return self._encode(step.micro_batch)
        device = step.micro_batch.input_ids.device
        with prefix.replaying(step.frozen, lambda state: state.restore(device)):
            return self._encode(step.micro_batch)

    def _give_back(self) -> None:
        """On a CPU, freed memory, but for what kept graphs will take again; on a GPU, torch does it."""
        if self._on_cpu:
            held = sum(step.graph_bytes for step in self._pending if step.embeddings is not None)
            kept = max(self._budget.most_kept, self.kept_bytes)
            self._budget.freed.give_back(max(self._largest_graph, kept - held), kept)


def _count_tokens(micro_batches: Sequence[TokenBatch]) -> list[int]:
    """Of each, without padding. On a GPU all are counted before the first is waited for."""
    counts = [micro_batch.attention_mask.sum() for micro_batch in micro_batches]
    return torch.stack(counts).tolist() if counts else []
