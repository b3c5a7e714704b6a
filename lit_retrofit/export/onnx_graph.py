"""The ONNX format: one graph from token ids to finished embeddings, pooling and normalisation inside."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.export.formats import WAY_OUT, Embed, tokenizer_of
from lit_retrofit.model.dual import Encoders, only_one
from lit_retrofit.model.plain_folder import save_plain_folder
from lit_retrofit.model.pooling import POOLING, PoolingName
from lit_retrofit.model.tokenizer import Role

GRAPH, INT8 = "onnx/model.onnx", "onnx/model_int8.onnx"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def check_onnx_installed() -> None:
    """Tells what is missing before anything slow begins.

    Raises:
        UserError: a package of the extra `onnx` is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"the format onnx needs the package {missing[0]}; pip install 'lit-retrofit[onnx]'")


class OnnxFolder:
    """`onnx/model.onnx` beside the tokenizer and ``lit_retrofit.json``.

    Args:
        int8: write `onnx/model_int8.onnx` too, whose weights are 8 bit integers.
    """

    def __init__(self, int8: bool = False) -> None:
        self.int8 = int8

    def write(self, encoder: Encoders, folder: Path) -> None:
        """Writes tokenizer, settings and graph."""
        one = only_one(encoder, WAY_OUT)
        pooling, normalise = one.options.pooling or "mean", one.normalise
        save_plain_folder(one, folder)
        # Read again: without this tool's own attention, which has no operator in ONNX.
        backbone = _plain_backbone(folder)
        for weights in (path for pattern in _WEIGHTS for path in folder.glob(pattern)):
            weights.unlink()
        (folder / GRAPH).parent.mkdir()
        with _quiet_exporter():
            _export(_Embedder(backbone, pooling, normalise).eval(), folder / GRAPH)
        if self.int8:
            _quantise(folder / GRAPH, folder / INT8)

    def load(self, folder: Path) -> Embed:
        """Embeds in onnxruntime."""
        return run_graph(folder, GRAPH)


def run_graph(folder: Path, graph: str) -> Embed:
    """Embeds with one of the folder's graphs on the CPU, in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / graph), options, providers=["CPUExecutionProvider"])
    tokenize = tokenizer_of(folder)

    def embed(texts: Sequence[str], role: Role) -> Tensor:
        batch = {name: ids.numpy() for name, ids in tokenize(texts, role).items()}
        return torch.from_numpy(session.run([OUTPUT], batch)[0])

    return embed


class _Embedder(nn.Module):
    def __init__(self, backbone: Any, pooling: PoolingName, normalise: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = POOLING[pooling]
        self.normalise = normalise

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = self.pool(hidden, attention_mask)
        return nn.functional.normalize(pooled, dim=-1) if self.normalise else pooled


def _plain_backbone(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def _export(model: nn.Module, path: Path) -> None:
    # Two texts of unequal length: sizes of one would be taken for constants.
    ids = torch.arange(18).view(2, 9) % 7 + 5
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    program = torch.onnx.export(
        model,
        (ids, mask),
        dynamo=True,
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_shapes=(sizes, sizes),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(str(path))


def _quantise(graph: Path, path: Path) -> None:
    """Dynamic quantisation: 8 bit weights, activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, _quiet_exporter():
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QInt8, per_channel=True)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's notes to its own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root", None)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
