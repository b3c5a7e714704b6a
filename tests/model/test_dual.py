"""Two encoders: options, tokens by role, checkpoints and refusals."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.model.dual import DualEncoder
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.loading import load_encoder, own_options
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts

TEXTS = ["word", "the page of 12", "", "what is it?"]


@pytest.fixture
def dual(bert_folder, xlmr_folder):
    """A BERT for queries, an XLM-RoBERTa (another padding, pooling, first position) for documents."""

    def make(**document) -> DualEncoder:
        query = build_encoder(EncoderOptions(str(bert_folder), lora=LoraOptions(r=2)))
        return DualEncoder(query, build_encoder(EncoderOptions(str(xlmr_folder), **document)))

    return make


def test_each_role_has_its_own_encoder(dual, bert_folder, xlmr_folder) -> None:
    encoder = dual()
    for role, folder in (("query", bert_folder), ("document", xlmr_folder)):
        alone = build_encoder(EncoderOptions(str(folder)))
        assert torch.equal(embed_texts(encoder, TEXTS, role), embed_texts(alone, TEXTS, role))
        assert encoder.tokenizer(TEXTS, role) == alone.tokenizer(TEXTS, role)
        assert encoder.tokenizer.of(role) is encoder.of(role).tokenizer
    assert (embed_texts(encoder, TEXTS, "query") - embed_texts(encoder, TEXTS, "document")).abs().max() > 0.1


def test_one_encoder_is_that_of_both_roles(bert_folder) -> None:
    encoder = build_encoder(EncoderOptions(str(bert_folder)))
    assert encoder.of("query") is encoder.of("document") is encoder
    assert encoder.tokenizer.of("query") is encoder.tokenizer.of("document")


def test_a_frozen_encoder_learns_nothing_and_drops_nothing(dual) -> None:
    encoder = dual(freeze=True)
    encoder.train()
    assert encoder.query.training and encoder.query.learns
    assert not any(module.training for module in encoder.document.modules())
    assert not encoder.document.learns


@pytest.mark.parametrize("freeze", [False, True])
def test_a_checkpoint_brings_both(dual, tmp_path, freeze: bool) -> None:
    encoder = dual(freeze=freeze, document_prompt="text: ")
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    trained = {f"encoder.{n}": p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
    assert freeze != any("document" in name for name in trained)
    torch.save({"state_dict": trained, **own_options(encoder)}, tmp_path / "a.ckpt")
    loaded = load_encoder(str(tmp_path / "a.ckpt"))
    assert own_options(loaded) == own_options(encoder)
    for role in ("query", "document"):
        assert torch.equal(embed_texts(loaded, TEXTS, role), embed_texts(encoder, TEXTS, role))
    shorter = load_encoder(str(tmp_path / "a.ckpt"), max_length=5)
    assert {len(ids) for role in ("query", "document") for ids in shorter.tokenizer(["a b c d"], role)} == {5}


def test_what_does_not_fit_together(bert_folder, tmp_path) -> None:
    from transformers import BertConfig, BertModel

    narrow = tmp_path / "narrow"
    config = BertConfig(
        vocab_size=114, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(config).save_pretrained(narrow)
    query = build_encoder(EncoderOptions(str(bert_folder)))
    query.tokenizer.backend.save_pretrained(narrow)
    document = build_encoder(EncoderOptions(str(narrow)))
    with pytest.raises(UserError, match=r"32 numbers .* 16, which cannot be compared") as raised:
        DualEncoder(query, document)
    assert "\n" not in str(raised.value) and str(narrow) in str(raised.value)
    document = build_encoder(EncoderOptions(str(bert_folder)))
    document.normalise = False
    with pytest.raises(UserError, match="normalises"):
        DualEncoder(query, document)
    with pytest.raises(UserError, match="freeze trains nothing"):
        build_encoder(EncoderOptions(str(bert_folder), freeze=True, lora=LoraOptions()))


def test_options_survive_json(dual) -> None:
    encoder = dual()
    options = own_options(encoder)
    assert json.loads(json.dumps(options)) == options
    assert options["document_encoder_options"] == asdict(encoder.document.options)
