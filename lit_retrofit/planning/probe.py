"""What a micro-batch's graph takes, measured on a few blocks of the real architecture with random weights.

A formula over the module tree would have to know what each activation, norm, adapter and autocast saves. One
block is like the next, so four blocks and a few texts tell it, in about a second, without any weights of the
model.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lit_retrofit.model import packing
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.lora import find_blocks
from lit_retrofit.model.trainable import freeze_layers, make_trainable
from lit_retrofit.planning.live_bytes import LiveBytes
from lit_retrofit.planning.sizes import first_trained_block
from lit_retrofit.training.graph_budget import GraphSize

BLOCKS = 4
"""ModernBERT's attention repeats every three blocks: the fourth makes the difference to one whole cycle."""
LONGEST = 512
"""Tokens of a probe's text at most: what is linear in the length below is so above."""
_VOCABULARY = 64


@dataclass(frozen=True)
class Line:
    """Bytes that grow with the tokens of a micro-batch.

    Attributes:
        constant: for each micro-batch, however small.
        per_token: for each token.
    """

    constant: float
    per_token: float

    def __call__(self, tokens: float) -> float:
        """Bytes; none without tokens."""
        return self.constant + self.per_token * tokens if tokens else 0.0


@dataclass(frozen=True)
class GraphCost:
    """What embedding a micro-batch takes.

    Attributes:
        graph: what autograd keeps for the backward pass.
        work: what is alive beyond that at the peak of the backward pass.
    """

    graph: Line
    work: Line


def cut(encoder: Encoder, blocks: int) -> Encoder:
    """A small encoder of the same architecture and options on the CPU: random weights, all blocks trained.

    Args:
        encoder: its shapes are enough.
        blocks: how many are left.
    """
    from transformers import AutoModel

    _, all_blocks = find_blocks(encoder.backbone)
    config = copy.deepcopy(encoder.backbone.config)
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == len(all_blocks):
            setattr(config, key, value[:blocks])  # kinds of attention, block by block
    if config._attn_implementation == packing.NAME:  # the new backbone has nothing installed yet
        config._attn_implementation = packing.BASE
    config.num_hidden_layers = min(blocks, len(all_blocks))
    config.vocab_size = _VOCABULARY
    config.pad_token_id = min(config.pad_token_id or 0, _VOCABULARY - 1)
    options = encoder.options
    lora = None if options.lora is None else replace(options.lora, top_layers=None)
    options = replace(options, freeze_layers=0, lora=lora, compile=False)
    with torch.random.fork_rng([]):
        backbone = AutoModel.from_config(
            config, dtype=torch.float32, trust_remote_code=options.trust_remote_code
        )
        if encoder.options.freeze_layers:
            freeze_layers(backbone, 0)  # what comes before the blocks is frozen along
        return Encoder(make_trainable(backbone, options), encoder.tokenizer, options, encoder.normalise)


def probe_texts(texts: int, length: int) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts of one length."""
    ids = 8 + torch.arange(texts * length).view(texts, length) % (_VOCABULARY - 16)
    return ids, torch.ones_like(ids)


def autocast(half: bool) -> AbstractContextManager:
    """The precision of the run; bf16 stands for fp16 too, which has the same size."""
    return torch.autocast("cpu", torch.bfloat16, enabled=half)


def measure_graph(encoder: Encoder, length: float, *, half: bool, gpu: bool = False) -> GraphCost:
    """Measures at two sizes and two depths, and draws the lines through them.

    Args:
        encoder: its shapes are enough.
        length: tokens of a usual text.
        half: whether the run computes in 16 bits.
        gpu: whether it runs on a GPU, whose attention keeps other tensors than a CPU's.
    """
    texts = min(max(8, round(length)), LONGEST)
    _, blocks = find_blocks(encoder.backbone)
    trained = len(blocks) - first_trained_block(encoder)
    deep = min(BLOCKS, len(blocks))
    graphs, works = {}, {}
    for depth in {1, deep}:
        small = cut(encoder, depth)
        with packing.as_on_gpu() if gpu else nullcontext():
            sizes = [_measure(small, count, texts, half) for count in (2, 4)]
        graphs[depth], works[depth] = (
            _line(*(size[part] for size in sizes), tokens=2 * texts) for part in (0, 1)
        )
    block = Line(0, 0)
    if deep > 1:
        steps = deep - 1
        block = Line(
            (graphs[deep].constant - graphs[1].constant) / steps,
            (graphs[deep].per_token - graphs[1].per_token) / steps,
        )
    more = max(0, trained - 1)
    graph = Line(graphs[1].constant + more * block.constant, graphs[1].per_token + more * block.per_token)
    return GraphCost(graph, works[deep])


def _measure(encoder: Encoder, texts: int, length: int, half: bool) -> tuple[float, float]:
    """Bytes of the graph, and of the peak beyond it."""
    ids, mask = probe_texts(texts, length)
    parameters = list(encoder.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    with autocast(half), torch.no_grad():
        encoder(ids, mask)  # decides here whether texts are packed
    gradients = [p.grad for p in parameters if p.grad is not None]
    known = [*parameters, *encoder.buffers(), *gradients, ids, mask]
    with LiveBytes(known) as live:
        with autocast(half), GraphSize(frozenset(p.data_ptr() for p in parameters), encoder.cheap) as size:
            embeddings = encoder(ids, mask)
        if embeddings.requires_grad:
            embeddings.backward(torch.ones_like(embeddings))
    return size.bytes, max(0.0, live.peak - size.bytes)


def _line(low: float, high: float, *, tokens: int) -> Line:
    """Through the bytes at `tokens` and at twice as many."""
    per_token = (high - low) / tokens
    return Line(max(0.0, low - per_token * tokens), per_token)
