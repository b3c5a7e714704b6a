"""Parameters against loaded models, operations against sums by hand."""

from __future__ import annotations

import pytest

from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.planning.sizes import count_flop, count_parameters, first_trained_block, made_weights

# A block of the tiny BERT: four attention matrices of 32 x 32, two of 32 x 48.
LINEAR = 4 * 32 * 32 + 2 * 32 * 48
ADAPTERS = 2 * (4 * (32 + 32) + 2 * (32 + 48))
ATTENTION = 4 * 10 * 32
"""Of ten tokens: scores and weighted sums, two operations each for every token and dimension."""


def shapes(folder, **options):
    return build_encoder(EncoderOptions(model=str(folder), **options), weights=False)


@pytest.mark.parametrize(
    "options",
    [{}, {"lora": LoraOptions(r=2)}, {"freeze_layers": 1}, {"freeze_embeddings": True}, {"dropout": 0.0}],
)
@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
def test_counts_are_those_of_the_loaded_model(kind: str, options: dict, model_folder) -> None:
    loaded = build_encoder(EncoderOptions(model=str(model_folder(kind)), **options))
    planned = shapes(model_folder(kind), **options)
    assert {p.device.type for p in planned.parameters()} == {"meta"}
    trained = [p.numel() for p in loaded.parameters() if p.requires_grad]
    found = count_parameters(planned, planned)
    assert found.total == sum(p.numel() for p in loaded.parameters())
    assert found.trainable == sum(trained)
    assert found.trainable_share == found.trainable / found.total
    assert found.embeddings == 114 * 32


def test_full_fine_tuning_by_hand(bert_folder) -> None:
    flop = count_flop(shapes(bert_folder), 10, merged=False)
    assert (flop.frozen_forward, flop.forward, flop.merging) == (0, 2 * (2 * LINEAR + ATTENTION), 0)
    assert flop.backward == 2 * flop.forward


def test_lora_by_hand(bert_folder) -> None:
    encoder = shapes(bert_folder, lora=LoraOptions(r=2))
    merged, plain = (count_flop(encoder, 10, merged=m) for m in (True, False))
    assert merged.forward == 2 * (2 * LINEAR + ATTENTION)
    assert merged.merging == 2 * (2 * 2 * LINEAR)
    assert merged.backward == plain.backward == 2 * (2 * LINEAR + 2 * ATTENTION + 4 * ADAPTERS)
    assert plain.forward == merged.forward + 2 * 2 * ADAPTERS
    assert plain.merging == 0


def test_weights_made_for_a_step(bert_folder) -> None:
    encoder = shapes(bert_folder, lora=LoraOptions(r=2))
    assert made_weights(encoder, 1e9, half=False) == 2 * made_weights(encoder, 1e9, half=True) == 8 * LINEAR
    assert (
        made_weights(shapes(bert_folder, lora=LoraOptions(r=2, top_layers=1)), 1e9, half=False) == 4 * LINEAR
    )
    assert made_weights(encoder, 50_000, half=False) == 5_000  # a tenth of what is free
    for options in ({}, {"lora": LoraOptions(dropout=0.1)}, {"lora": LoraOptions(), "compile": True}):
        assert made_weights(shapes(bert_folder, **options), 1e9, half=False) == 0


@pytest.mark.parametrize("options", [{"freeze_layers": 1}, {"lora": LoraOptions(r=2, top_layers=1)}])
def test_nothing_goes_back_through_frozen_blocks(options: dict, bert_folder) -> None:
    encoder = shapes(bert_folder, **options)
    flop = count_flop(encoder, 10, merged=True)
    assert first_trained_block(encoder) == 1
    assert flop.frozen_forward == flop.trained_forward == 2 * LINEAR + ATTENTION
    every = {"lora": LoraOptions(r=2)} if "lora" in options else {}
    assert flop.backward == count_flop(shapes(bert_folder, **every), 10, merged=True).backward / 2


def test_a_norm_above_the_blocks_leaves_the_lower_ones_frozen(modernbert_folder) -> None:
    assert first_trained_block(shapes(modernbert_folder, freeze_layers=1)) == 1
    assert first_trained_block(shapes(modernbert_folder, freeze_embeddings=True)) == 0


def test_checkpointing_repeats_the_forward(bert_folder) -> None:
    plain, again = (
        count_flop(shapes(bert_folder, gradient_checkpointing=on), 10, merged=True) for on in (False, True)
    )
    assert again.backward == plain.backward + plain.forward
