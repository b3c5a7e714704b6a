"""The command ``export``: a trained model as a sentence-transformers directory, checked after a reload."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from lit_retrofit.errors import UserError
from lit_retrofit.export.card import write_card
from lit_retrofit.model.dual import DualEncoder, Encoders
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.sentence_transformer import Part, save_part, save_router
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts

LOWEST_COSINE = 0.9999
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
    before: Path | None = None,
    after: Path | None = None,
    overwrite: bool = False,
) -> float:
    """Writes a trained model as a sentence-transformers directory, with a model card.

    Example: lit-retrofit export runs/quickstart/fit --output runs/quickstart/export

    Adapters are merged; prompts, pooling and lengths go along. Two encoders, of queries and of documents,
    become that library's Router. The directory is loaded again by sentence-transformers and must embed as the
    trained model does, to a cosine of 0.9999.

    Args:
        model: a run folder of fit, a checkpoint, or any model.
        output: the directory to write.
        before: a folder written by evaluate on the base model, for the card's table.
        after: the same of the trained model.
        overwrite: replace an earlier export.

    Returns:
        The lowest cosine between the trained model's embeddings and the reloaded export's.

    Raises:
        UserError: the output exists and is not to be replaced, or the model cannot be loaded.
        RuntimeError: the export embeds differently.
    """
    _check_output(output, overwrite)
    encoder = load_encoder(model).eval()
    expected = {role: embed_texts(encoder, PROBES, role) for role in ("query", "document")}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".exporting-") as scratch:
        made = Path(scratch) / "model"
        write_encoder(encoder, made)
        lowest = min(_lowest_cosine(made, role, vectors) for role, vectors in expected.items())
        if not lowest >= LOWEST_COSINE:
            raise RuntimeError(f"the export embeds differently from the trained model: cosine {lowest:.6f}")
        documents = encoder.document.options if isinstance(encoder, DualEncoder) else None
        write_card(made, encoder.of("query").options, _training(Path(model)), before, after, documents)
        if output.exists():
            shutil.rmtree(output)
        made.replace(output)
    Console().print(f"exported to {output}; lowest cosine to the trained model after a reload: {lowest:.6f}")
    return lowest


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise UserError(f"{output}: already there; give another --output or replace it with --overwrite")
    # Replacing deletes the whole folder.
    if output.exists() and not (output / "modules.json").is_file():
        raise UserError(f"{output}: not an earlier export, and not replaced; give another --output")


def write_encoder(encoder: Encoders, folder: Path) -> None:
    """Writes the directory. The encoder's adapters are merged by it: do not use the encoder after."""
    roles: tuple[Role, ...] = ("query", "document")
    prompts = {role: encoder.tokenizer.of(role).prompts[role] for role in roles}
    if isinstance(encoder, DualEncoder):
        save_router(_part(encoder.query), _part(encoder.document), folder, prompts=prompts)
    else:
        save_part(_part(encoder), folder, prompts=prompts)


def _part(encoder: Encoder) -> Part:
    return Part(
        encoder.merged_backbone(),
        encoder.tokenizer.backend,
        encoder.options.pooling or "mean",
        encoder.normalise,
        encoder.tokenizer.max_lengths,
    )


def _lowest_cosine(folder: Path, role: str, expected: torch.Tensor) -> float:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    embed = model.encode_query if role == "query" else model.encode_document
    found = embed(list(PROBES), convert_to_tensor=True, show_progress_bar=False)
    return torch.cosine_similarity(found.float(), expected).min().item()


def _training(model: Path) -> dict | None:
    """The training.json of a run folder, or of the one that a checkpoint lies in."""
    run = model.parent.parent if model.suffix == ".ckpt" else model
    card = run / "training.json"
    return json.loads(card.read_text(encoding="utf-8")) if card.is_file() else None
