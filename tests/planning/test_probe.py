"""The probe's lines against the whole model with its weights."""

from __future__ import annotations

import pytest
import torch

from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.planning.live_bytes import LiveBytes
from lit_retrofit.planning.probe import autocast, cut, measure_graph, probe_texts
from lit_retrofit.training.graph_budget import GraphSize


def test_the_peak_is_of_what_is_alive_at_a_time() -> None:
    known = torch.zeros(1000)
    with LiveBytes([known]) as live:
        first = torch.ones(100)
        second = first + 1
        assert live.peak == 800
        del first, second
        view = known[:500]
        third = torch.ones(150).view(3, 50)
    assert live.peak == 800
    assert view.shape == (500,) and third.shape == (3, 50)


@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
@pytest.mark.parametrize("options", [{}, {"lora": LoraOptions(r=2)}, {"freeze_layers": 1}])
def test_the_graph_of_another_micro_batch_is_foretold(kind: str, options: dict, model_folder) -> None:
    given = EncoderOptions(model=str(model_folder(kind)), dropout=0.0, **options)
    cost = measure_graph(build_encoder(given, weights=False), 16, half=False)
    encoder = build_encoder(given)
    ids, mask = probe_texts(9, 16)
    with torch.no_grad():
        encoder(ids, mask)
    with GraphSize(frozenset(p.data_ptr() for p in encoder.parameters()), encoder.cheap) as size:
        embeddings = encoder(ids, mask)
    assert embeddings.requires_grad
    # Some tensors below the blocks are not foretold: much of these two narrow blocks, 2 % of a real model.
    # And ModernBERT's first block lacks a norm that the second, the only one trained here, has.
    tolerance = 0.25 if kind == "modernbert" and "freeze_layers" in options else 0.2
    assert cost.graph(ids.numel()) == pytest.approx(size.bytes, rel=tolerance)
    assert cost.graph(0) == 0
    assert 0 < cost.work(ids.numel()) < size.bytes


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
def test_what_a_cut_encoder_keeps_is_what_the_whole_keeps(kind: str, half: bool, model_folder) -> None:
    """Packed both: on a CPU a padded attention keeps a tenth less, in 16 bits a third less."""
    given = EncoderOptions(model=str(model_folder(kind)), dropout=0.0)
    encoder = build_encoder(given)
    ids, mask = probe_texts(6, 16)
    sizes = []
    for one in (encoder, cut(build_encoder(given, weights=False), 100)):
        with autocast(half), torch.no_grad():
            one(ids, mask)
        kept = GraphSize(frozenset(p.data_ptr() for p in one.parameters()), one.cheap)
        with autocast(half), kept as size:
            embeddings = one(ids, mask)
        assert embeddings.requires_grad and one.states.packs(one.backbone, ids.device)
        sizes.append(size.bytes)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.002)  # by alignment


def test_a_gpus_attention_keeps_sixteen_bits(bert_folder) -> None:
    """Query, key, value and result in 16 bits; a CPU keeps all in 32, and the result once more in 16."""
    given = EncoderOptions(model=str(bert_folder), dropout=0.0)
    encoder = build_encoder(given, weights=False)
    cpu, gpu = (measure_graph(encoder, 16, half=True, gpu=gpu).graph.per_token for gpu in (False, True))
    blocks, width = encoder.backbone.config.num_hidden_layers, encoder.dimension
    assert cpu - gpu == pytest.approx(blocks * width * (4 * 4 + 2 - 4 * 2), rel=0.05)


@pytest.mark.parametrize("options", [{}, {"lora": LoraOptions(r=2)}])
def test_the_peak_of_checkpointed_blocks_is_foretold(options: dict, model_folder) -> None:
    """They are computed again in the backward pass, one at a time: the peak is there."""
    given = EncoderOptions(str(model_folder("bert")), dropout=0.0, gradient_checkpointing=True, **options)
    cost = measure_graph(build_encoder(given, weights=False), 16, half=False)
    encoder = build_encoder(given)
    ids, mask = probe_texts(30, 16)
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    with torch.no_grad():
        encoder(ids, mask)
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    with LiveBytes([*encoder.parameters(), *encoder.buffers(), *gradients, ids, mask]) as live:
        encoder(ids, mask).sum().backward()
    assert cost.work(ids.numel()) > cost.graph(ids.numel())
    assert cost.graph(ids.numel()) + cost.work(ids.numel()) == pytest.approx(live.peak, rel=0.1)
