"""Export to sentence-transformers, loaded there and compared with vectors from the trained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.errors import UserError
from lit_retrofit.export import export as command
from lit_retrofit.export.export import export
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts

TEXTS = ["word", "the page of 12 texts", "?", "ünknown letters", "long " * 40, ""]


OPTIONS = {
    "full": {},
    "lora": {"lora": LoraOptions(r=4, alpha=16)},
    "lora on top, cls": {"lora": LoraOptions(r=4, alpha=16, top_layers=1), "pooling": "cls"},
    "last token, lengths": {"pooling": "last", "query_max_length": 6, "document_max_length": 40},
    "longer queries": {"query_max_length": 33, "document_max_length": 5, "gradient_checkpointing": True},
    "other prompts": {"query_prompt": "ask: ", "document_prompt": ""},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["bert", "xlmr", "modernbert"])
def test_embeds_as_the_trained_model(run, tmp_path, kind: str, options: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder, encoder = run(kind, **OPTIONS[options])
    assert export(str(folder), output=tmp_path / "out") > 0.9999
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for role, embed in (("query", model.encode_query), ("document", model.encode_document)):
        found = embed(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        expected = embed_texts(encoder, TEXTS, role)
        assert torch.cosine_similarity(found, expected).min() > 0.9999
        assert torch.allclose(found.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-5)
    # Another model than the base, and roles that differ.
    base = load_encoder(encoder.options.model)
    assert (
        torch.cosine_similarity(embed_texts(base, TEXTS, "query"), embed_texts(encoder, TEXTS, "query")).min()
        < 0.999
    )
    # Our own commands read the export as they do the run.
    again = load_encoder(str(tmp_path / "out"))
    assert (embed_texts(again, TEXTS, "query") - embed_texts(encoder, TEXTS, "query")).abs().max() < 1e-5
    kept = ("pooling", "query_prompt", "document_prompt", "query_max_length", "document_max_length")
    assert [getattr(again.options, name) for name in kept] == [
        getattr(encoder.options, name) for name in kept
    ]


def test_stock_modules_and_nothing_of_the_building_site(run, tmp_path) -> None:
    folder, _ = run(lora=LoraOptions(r=2))
    export(str(folder), output=tmp_path / "out")
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    kinds = [module["type"] for module in modules]
    assert all(kind.startswith("sentence_transformers.") for kind in kinds)
    assert [kind.rsplit(".", 1)[-1] for kind in kinds] == ["Transformer", "Pooling", "Normalize"]
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".py", ".ckpt")]
    assert Path("model.safetensors") in files
    for path in files:
        if path.suffix in (".json", ".md"):
            assert ".exporting-" not in (tmp_path / "out" / path).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_overwriting(run, tmp_path, capsys) -> None:
    folder, _ = run()
    words = ["export", str(folder), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    (tmp_path / "out" / "stale.txt").write_text("x")
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "stale.txt").exists()
    assert main([*words, "--overwrite"]) == 0
    assert not (tmp_path / "out" / "stale.txt").exists()


def test_only_an_earlier_export_is_replaced(run, tmp_path) -> None:
    """`--output runs --overwrite` must not delete everything else in there."""
    folder, _ = run()
    with pytest.raises(UserError, match="not an earlier export"):
        export(str(folder), output=folder, overwrite=True)
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    file = tmp_path / "notes"
    file.write_text("kept")
    with pytest.raises(UserError):
        export(str(folder), output=file, overwrite=True)
    assert file.read_text() == "kept"


def test_an_export_that_embeds_differently_is_not_left_behind(run, tmp_path, monkeypatch) -> None:
    folder, _ = run()
    right = command.SentenceTransformersFolder.write

    def wrong(self, encoder: Encoder, folder: Path) -> None:
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        right(self, encoder, folder)

    monkeypatch.setattr(command.SentenceTransformersFolder, "write", wrong)
    with pytest.raises(RuntimeError, match="differently"):
        export(str(folder), output=tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_missing_model(tmp_path) -> None:
    with pytest.raises(UserError):
        export(str(tmp_path / "nothing"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["transformers", "onnx"])
def test_two_encoders_are_exported_for_sentence_transformers_alone(
    two_encoders_run, tmp_path, monkeypatch, format
) -> None:
    monkeypatch.setattr(command, "check_onnx_installed", lambda: None)
    with pytest.raises(UserError, match=r"two encoders.*only --format sentence-transformers"):
        export(str(two_encoders_run), output=tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())
