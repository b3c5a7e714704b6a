"""Tiny random models, made once per session, and the environment: offline, nothing logged anywhere."""

from __future__ import annotations

import multiprocessing
import os
import string
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

# Processes of tests that start several are forked from one that has imported what takes seconds.
multiprocessing.set_forkserver_preload(["lit_retrofit.training.lit_module"])

PROMPTS = {"query": "query: ", "document": "passage: "}
LENGTHS = {"query": 16, "document": 24}


def make_tokenizer(cls: str, sep: str, pad: str, unk: str, max_length: int):
    """Pieces of single characters and of a few words: every ASCII text has tokens of its own."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [cls, pad, sep, unk, *string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces += [f"##{c}" for c in string.ascii_lowercase + string.digits]
    pieces += ["query", "passage", "the", "page", "text", "word"]
    backend = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token=unk))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B {sep}", special_tokens=[(cls, 0), (sep, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk,
        model_max_length=max_length,
    )  # fmt: skip


def make_backbone(kind: str):
    """Weights far enough from zero that embeddings differ, and dropout that can be seen."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        ModernBertConfig,
        ModernBertModel,
        XLMRobertaConfig,
        XLMRobertaModel,
    )

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 114, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "initializer_range": 0.2, "pad_token_id": 1,
    }  # fmt: skip
    if kind == "bert":
        return BertModel(BertConfig(**sizes, max_position_embeddings=64))
    if kind == "xlmr":
        return XLMRobertaModel(XLMRobertaConfig(**sizes, max_position_embeddings=66, type_vocab_size=1))
    return ModernBertModel(
        ModernBertConfig(
            **sizes,
            max_position_embeddings=64,
            initializer_cutoff_factor=3.0,
            cls_token_id=0,
            sep_token_id=2,
            bos_token_id=0,
            eos_token_id=2,
            attention_dropout=0.1,
            mlp_dropout=0.1,
            local_attention=8,
        )
    )


def save_model(folder: Path, kind: str, pooling: str) -> Path:
    from lit_retrofit.model.sentence_transformer import save_sentence_transformer

    names = ("<s>", "</s>", "<pad>", "<unk>") if kind == "xlmr" else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    # The tokenizer's own limit must not hide that RoBERTa takes two tokens fewer than it has positions.
    tokenizer = make_tokenizer(*names, max_length=1000 if kind == "xlmr" else 64)
    save_sentence_transformer(
        make_backbone(kind), tokenizer, folder,
        pooling=pooling, normalise=True, prompts=PROMPTS, max_lengths=LENGTHS,  # type: ignore[arg-type]
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with mean pooling, E5's prompts, 16 tokens per query and 24 per document."""
    return save_model(tmp_path_factory.mktemp("models") / "bert", "bert", "mean")


@pytest.fixture(scope="session")
def xlmr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-RoBERTa with CLS pooling; otherwise like the BERT."""
    return save_model(tmp_path_factory.mktemp("models") / "xlmr", "xlmr", "cls")


@pytest.fixture(scope="session")
def modernbert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ModernBERT with mean pooling; otherwise like the BERT."""
    return save_model(tmp_path_factory.mktemp("models") / "modernbert", "modernbert", "mean")


@pytest.fixture(scope="session")
def two_encoders_run(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path, xlmr_folder: Path) -> Path:
    """The folder of a run whose frozen XLM-RoBERTa embeds documents for the BERT, trained for queries."""
    import torch

    from lit_retrofit.model.dual import DualEncoder
    from lit_retrofit.model.encoder import EncoderOptions, build_encoder
    from lit_retrofit.model.loading import STATE_PREFIX, own_options

    parts = (EncoderOptions(str(bert_folder)), EncoderOptions(str(xlmr_folder), freeze=True))
    encoder = DualEncoder(*map(build_encoder, parts))
    state = {STATE_PREFIX + n: p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
    folder = tmp_path_factory.mktemp("models") / "two encoders"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state, **own_options(encoder)}, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="session")
def model_folder(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """``model_folder("bert")`` and so on, for parametrised tests."""
    return lambda kind: request.getfixturevalue(f"{kind}_folder")


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that reads query and document together, with one output, as transformers saves it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "cross-encoder"
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=114, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        initializer_range=0.3, pad_token_id=1, max_position_embeddings=64, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer("[CLS]", "[SEP]", "[PAD]", "[UNK]", max_length=64).save_pretrained(folder)
    return folder
