"""Plain and ONNX folders, against vectors from the trained model."""

from __future__ import annotations

import json

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.export import export as command
from lit_retrofit.export import onnx_graph
from lit_retrofit.export.export import export
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts

TEXTS = ["word", "the page of 12 texts", "?", "ünknown letters", "long " * 40, ""]
LORA = {"lora": LoraOptions(r=4, alpha=16)}


PLAIN = {
    "bert": LORA,
    "xlmr": {"pooling": "last", "query_prompt": "ask: "},
    "modernbert": {"pooling": "cls"},
}


@pytest.mark.parametrize("kind, options", PLAIN.items())
def test_a_plain_folder_embeds_as_the_trained_model(run, tmp_path, kind: str, options: dict) -> None:
    folder, encoder = run(kind, **options)
    assert export(str(folder), output=tmp_path / "out", format="transformers") > 0.9999
    assert not (tmp_path / "out" / "modules.json").exists()
    # Our own commands know its pooling, prompts and lengths, which transformers has no place for.
    again = load_encoder(str(tmp_path / "out"))
    for role in ("query", "document"):
        assert (embed_texts(again, TEXTS, role) - embed_texts(encoder, TEXTS, role)).abs().max() < 1e-5
    kept = ("pooling", "query_prompt", "document_prompt", "query_max_length", "document_max_length")
    assert [getattr(again.options, n) for n in kept] == [getattr(encoder.options, n) for n in kept]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, options", [("xlmr", {"pooling": "last"}), ("modernbert", {"pooling": "cls", **LORA})]
)
def test_the_graph_embeds_as_torch_whatever_the_batch(run, tmp_path, kind: str, options: dict) -> None:
    folder, encoder = run(kind, **options)
    export(str(folder), output=tmp_path / "out", format="onnx")
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"model.onnx", "tokenizer.json", "lit_retrofit.json", "README.md"} <= files
    assert not [name for name in files if name.endswith((".safetensors", ".bin"))]
    embed = onnx_graph.run_graph(tmp_path / "out", onnx_graph.GRAPH)
    for role in ("query", "document"):
        expected = embed_texts(encoder, TEXTS, role)
        assert (embed(TEXTS, role) - expected).abs().max() < 1e-4
        assert (embed(TEXTS[:1], role) - expected[:1]).abs().max() < 1e-4


@pytest.mark.slow
def test_int8_says_what_it_costs(run, tmp_path, capsys) -> None:
    folder, encoder = run(**LORA)
    words = ["export", str(folder), "--output", str(tmp_path / "out"), "--format", "onnx", "--int8"]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    card = (tmp_path / "out" / "README.md").read_text()
    embed = onnx_graph.run_graph(tmp_path / "out", onnx_graph.INT8)
    cosines = torch.cat([
        torch.cosine_similarity(embed(command.PROBES, role), embed_texts(encoder, command.PROBES, role))
        for role in ("query", "document")
    ])  # fmt: skip
    assert 0.9 < cosines.mean() < 0.99999
    expected = f"mean {cosines.mean():.4f}, lowest {cosines.min():.4f} over 22 texts"
    assert expected in shown and expected in card


def test_a_graph_of_other_numbers_is_refused() -> None:
    expected = {"query": torch.nn.functional.normalize(torch.randn(11, 8), dim=-1)}
    for shift, refused in ((0.0, False), (5e-5, False), (2e-4, True)):

        def embed(texts, role, shift=shift):
            return expected[role] + shift

        if refused:
            with pytest.raises(RuntimeError, match="other numbers than torch"):
                command._check_reloaded(embed, expected, exactly=True)
            command._check_reloaded(embed, expected, exactly=False)
        else:
            command._check_reloaded(embed, expected, exactly=True)


def test_mistakes_get_one_line(run, tmp_path, capsys, monkeypatch) -> None:
    folder, _ = run()
    words = ["export", str(folder), "--output", str(tmp_path / "out")]
    for extra, part in ((["--int8"], "format onnx"), (["--format", "tflite"], "tflite")):
        assert main([*words, *extra]) == 2
        assert part in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    assert main([*words, "--format", "onnx"]) == 2
    assert "pip install 'lit-retrofit[onnx]'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*words, "--before", str(tmp_path / "empty")]) == 2
    assert "metrics.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_merge_is_exported_under_its_bases_name(run, tmp_path) -> None:
    from lit_retrofit.merging.merge import merge

    folder, _ = run(**LORA)
    merge([str(folder)], output=tmp_path / "merged", weight=0.5)
    export(str(tmp_path / "merged"), output=tmp_path / "out")
    assert "Base + 0.5 × (1 × `run` − base)" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "modules.json").read_text())
