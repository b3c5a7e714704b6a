"""The command ``export``: a trained model for other libraries, checked after a reload by them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.export.card import Exported, write_card
from lit_retrofit.export.evaluations import read_evaluations
from lit_retrofit.export.formats import Embed, ExportFormat, SentenceTransformersFolder, TransformersFolder
from lit_retrofit.export.onnx_graph import GRAPH, INT8, OnnxFolder, check_onnx_installed, run_graph
from lit_retrofit.model.dual import DualEncoder
from lit_retrofit.model.loading import find_checkpoint, load_encoder
from lit_retrofit.model.plain_folder import SETTINGS, embedding_settings
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts

FormatName = Literal["sentence-transformers", "transformers", "onnx"]
Vectors = dict[Role, Tensor]
ROLES: tuple[Role, Role] = ("query", "document")
LOWEST_COSINE = 0.9999
LARGEST_DIFFERENCE = 1e-4
# Scripts, lengths and oddities: what prompts, truncation, pooling and merging could disturb.
PROBES = (
    "How do I reset the filter?", "Felder zuordnen", "¿Cómo se guarda un documento?", "Правка ссылки",
    "表の計算方法", "如何插入图片", "필터 재설정", "Süzgeci sıfırla", "كيف أحفظ المستند؟", "x",
    "A long text that is cut. " * 200,
)  # fmt: skip


def export(
    model: str,
    *,
    output: Path,
    format: FormatName = "sentence-transformers",
    int8: bool = False,
    before: Path | None = None,
    after: Path | None = None,
    overwrite: bool = False,
) -> float:
    """Writes a trained model for other libraries, with a model card.

    Example: lit-retrofit export runs/quickstart/fit --output runs/quickstart/export

    Adapters are merged; prompts, pooling and lengths go along. Two encoders, of queries and of documents,
    become the Router of sentence-transformers. The directory is loaded again by the library it is for and
    must embed as the model does, to a cosine of 0.9999; an ONNX graph to 0.0001 in every number.

    Args:
        model: a run folder of fit or merge, a checkpoint, or any model.
        output: the directory to write.
        format: sentence-transformers; transformers (a plain Hugging Face folder); or onnx (a graph from
            token ids to embeddings, with pooling and normalisation inside).
        int8: with onnx, write a graph with 8 bit weights too, and tell what it costs.
        before: a folder written by evaluate on the base model, for the card's table.
        after: the same of the trained model, on the same data.
        overwrite: replace an earlier export.

    Returns:
        The lowest cosine between the model's embeddings and the reloaded export's.

    Raises:
        UserError: the output exists and is not to be replaced, the evaluations cannot be shown side by side,
            the model cannot be loaded, or a package that the format needs is missing.
        RuntimeError: the export embeds differently.
    """
    _check_output(output, overwrite)
    if int8 and format != "onnx":
        raise UserError(f"int8 is of the format onnx, not of {format}; give --format onnx, or leave it out")
    evaluations = read_evaluations(before, after)
    target = _format(format, int8)
    encoder = load_encoder(model).eval()
    settings = embedding_settings(encoder)
    expected: Vectors = {role: embed_texts(encoder, PROBES, role) for role in ROLES}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".exporting-") as scratch:
        made = Path(scratch) / "model"
        target.write(encoder, made)
        lowest, checks = _check_reloaded(target.load(made), expected, exactly=format == "onnx")
        if int8:
            checks.append(_cost_of_int8(made, expected))
        card = Exported(
            format,
            encoder.of("query").options,
            settings,
            document_options=encoder.document.options if isinstance(encoder, DualEncoder) else None,
            training=_beside(model, "training.json"),
            merging=_beside(model, "merging.json"),
            evaluations=evaluations,
            checks=tuple(checks),
            checkpoint=find_checkpoint(model) is not None,
        )
        write_card(made, card)
        if output.exists():
            shutil.rmtree(output)
        made.replace(output)
    for line in (f"exported to {output}", *checks):
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
    return lowest


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise UserError(f"{output}: already there; give another --output or replace it with --overwrite")
    # Replacing deletes the whole folder.
    if output.exists() and not any((output / name).is_file() for name in ("modules.json", SETTINGS)):
        raise UserError(f"{output}: not an earlier export, and not replaced; give another --output")


def _format(name: FormatName, int8: bool) -> ExportFormat:
    if name == "onnx":
        check_onnx_installed()
        return OnnxFolder(int8)
    return TransformersFolder() if name == "transformers" else SentenceTransformersFolder()


def _check_reloaded(embed: Embed, expected: Vectors, *, exactly: bool) -> tuple[float, list[str]]:
    """The lowest cosine over texts in many scripts, and what to say of it."""
    found = {role: embed(PROBES, role).float() for role in expected}
    lowest = min(torch.cosine_similarity(found[role], expected[role]).min().item() for role in expected)
    if not lowest >= LOWEST_COSINE:
        raise RuntimeError(f"the export embeds differently from the original model: cosine {lowest:.6f}")
    checks = [f"lowest cosine to the original model after a reload: {lowest:.6f}"]
    if exactly:
        largest = max((found[role] - expected[role]).abs().max().item() for role in expected)
        scale = max(vectors.abs().max().item() for vectors in expected.values())
        if not largest <= LARGEST_DIFFERENCE * max(1.0, scale):
            raise RuntimeError(f"the graph computes other numbers than torch: they differ by {largest:.2g}")
        checks.append(f"largest difference of a number between onnxruntime and torch: {largest:.1e}")
    return lowest, checks


def _cost_of_int8(folder: Path, expected: Vectors) -> str:
    embed = run_graph(folder, INT8)
    cosines = torch.cat([torch.cosine_similarity(embed(PROBES, r), expected[r]) for r in expected])
    sizes = [path.stat().st_size / 1e6 for path in (folder / GRAPH, folder / INT8)]
    return (
        f"cosine of {INT8} to the original model: mean {cosines.mean():.4f}, lowest {cosines.min():.4f} over "
        f"{len(cosines)} texts; {sizes[1]:.0f} MB instead of {sizes[0]:.0f} MB"
    )


def _beside(model: str, name: str) -> dict | None:
    """A record in the run folder, or in the one that the checkpoint lies in."""
    path = Path(model)
    record = (path.parent.parent if path.suffix == ".ckpt" else path) / name
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
