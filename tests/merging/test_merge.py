"""The command: what it writes embeds as the arithmetic on whole weights says, by another road."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.errors import UserError
from lit_retrofit.export.export import export
from lit_retrofit.merging import merge as command
from lit_retrofit.merging.merge import merge
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts

LORA = LoraOptions(r=4, alpha=16)
TEXTS = ["word", "the page of 12 texts", "long " * 20, "what of 33"]


def backbone_weights(model: Path) -> dict[str, torch.Tensor]:
    state = load_encoder(str(model)).merged_backbone().state_dict()
    return {name: weight.double() for name, weight in state.items() if weight.is_floating_point()}


def embedded_by_hand(bert_folder: Path, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    encoder = build_encoder(EncoderOptions(str(bert_folder)))
    encoder.backbone.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=False)
    return embed_texts(encoder, TEXTS, "query")


def distance(model: Path, expected: torch.Tensor) -> float:
    return (embed_texts(load_encoder(str(model)), TEXTS, "query") - expected).abs().max().item()


SUMS = {
    "average": ({}, lambda base, a, b: (a + b) / 2),
    "half way to the average": ({"weight": 0.5}, lambda base, a, b: base / 2 + (a + b) / 4),
    "a less b": ({"coefficients": [1.0, -0.5]}, lambda base, a, b: base + (a - base) - 0.5 * (b - base)),
}


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", SUMS)
def test_linear_merges(run, bert_folder, tmp_path, name: str, kind: str) -> None:
    lora = [{"lora": LORA}, {"lora": LoraOptions(r=2, alpha=2)}] if kind == "lora" else [{}, {}]
    first, second = run("a", 1, **lora[0]), run("b", 2, **lora[1])
    options, formula = SUMS[name]
    merge([str(first), str(second)], output=tmp_path / "out", **options)
    base, a, b = (backbone_weights(model) for model in (bert_folder, first, second))
    expected = embedded_by_hand(bert_folder, {n: formula(base[n], a[n], b[n]) for n in base})
    assert distance(tmp_path / "out", expected) < 2e-5
    # The merge is none of its parts.
    assert min(distance(model, expected) for model in (bert_folder, first, second)) > 1e-3
    # Adapters stay adapters, whole weights a directory for sentence-transformers.
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").is_file() == (kind == "lora")
    assert (tmp_path / "out" / "modules.json").is_file() == (kind == "full")
    if kind == "lora":
        assert load_encoder(str(tmp_path / "out")).options.lora == LoraOptions(r=6, alpha=6)


@pytest.mark.parametrize("options", [{"lora": LORA}, {}, {"lora": LORA, "method": "slerp"}])
def test_one_run_and_its_base(run, bert_folder, tmp_path, options: dict) -> None:
    method = options.pop("method", "linear")
    folder = run("a", **options)
    merge([str(folder)], output=tmp_path / "out", weight=0.3, method=method)
    base, trained = backbone_weights(bert_folder), backbone_weights(folder)
    linear = {n: 0.7 * base[n] + 0.3 * trained[n] for n in base}
    found = distance(tmp_path / "out", embedded_by_hand(bert_folder, linear))
    assert found < 2e-5 if method == "linear" else 1e-4 < found < 0.1


def test_a_merge_is_merged_evaluated_and_exported_like_any_model(run, dev, tmp_path) -> None:
    first = run("a", lora=LORA)
    merge([str(first)], output=tmp_path / "half", weight=0.5)
    merge([str(tmp_path / "half")], output=tmp_path / "quarter", weight=0.5)
    merge([str(first)], output=tmp_path / "directly", weight=0.25)
    quarter = embed_texts(load_encoder(str(tmp_path / "directly")), TEXTS, "query")
    assert distance(tmp_path / "quarter", quarter) < 1e-5
    assert export(str(tmp_path / "quarter"), output=tmp_path / "export") > 0.9999
    assert main(["evaluate", str(tmp_path / "quarter"), "--data", str(dev)]) == 0


def test_between_two_runs(run, bert_folder, tmp_path) -> None:
    """Any model may be the base: here the scan would go from one run to another."""
    first, second = run("a", 1), run("b", 2)
    merge([str(second)], base=str(first), output=tmp_path / "out", weight=0.4)
    a, b = backbone_weights(first), backbone_weights(second)
    assert (
        distance(tmp_path / "out", embedded_by_hand(bert_folder, {n: a[n].lerp(b[n], 0.4) for n in a})) < 2e-5
    )


def test_the_scan(run, dev, bert_folder, tmp_path, capsys) -> None:
    from lit_retrofit.data.beir import read_beir
    from lit_retrofit.evaluation.measures import evaluate_embeddings, mean_over_kinds, means_by_kind

    folder = run("a", lora=LORA)
    words = ["merge", str(folder), "--data", str(dev), "--scan", "[0.5]", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    record = json.loads((tmp_path / "out" / "merging.json").read_text())
    assert [point["weight"] for point in record["scan"]] == [0.0, 0.5, 1.0]
    assert record["origin"] == str(bert_folder) and record["origin_is_folder"]
    scores = [point["score"] for point in record["scan"]]
    assert len(set(scores)) > 1  # else nothing is picked
    assert record["weight"] == record["scan"][scores.index(max(scores))]["weight"]
    # Each point is what `evaluate` measures of a merge at that weight, and the folder is the picked one.
    held_out = read_beir(dev)
    for model, point in ((bert_folder, 0), (folder, 2), (tmp_path / "out", scores.index(max(scores)))):
        encoder = load_encoder(str(model))
        queries = embed_texts(encoder, [query.text for query in held_out.queries], "query")
        corpus = embed_texts(encoder, [document.text for document in held_out.corpus], "document")
        results = evaluate_embeddings(held_out, queries, corpus)
        means = means_by_kind((result.task.kind, result.scores) for result in results)
        assert scores[point] == pytest.approx(mean_over_kinds(means), abs=1e-6)
    shown = capsys.readouterr().out
    assert "0.5" in shown and "merging" not in shown.split("merged")[0]


def test_what_a_run_was_trained_on_goes_along(run, dev, tmp_path) -> None:
    folder = run("a", lora=LORA)
    card = {"data": {"records": 5, "languages": {"en": 5}, "sources": []}}
    (folder / "training.json").write_text(json.dumps(card))
    merge([str(folder)], output=tmp_path / "out", data=str(dev), scan=[0.5], protect_untrained=True)
    record = json.loads((tmp_path / "out" / "merging.json").read_text())
    german = [point["untrained"] for point in record["scan"]]
    tasks = record["scan"][0]["tasks"]
    of_german = [t["nDCG@10"] for t in tasks if {t["query_language"], t["corpus_language"]} != {"en"}]
    assert german[0] == pytest.approx(sum(of_german) / len(of_german))
    chosen = [point["weight"] for point in record["scan"]].index(record["weight"])
    assert german[chosen] >= german[0]
    assert (tmp_path / "out" / "training.json").is_file()


def test_other_models_are_refused_before_weights_are_read(
    run, tmp_path, xlmr_folder, modernbert_folder, monkeypatch
) -> None:
    first = run("a", lora=LORA)
    monkeypatch.setattr(command, "merge_parts", None)
    for other in (xlmr_folder, modernbert_folder):
        with pytest.raises(UserError, match=r"cannot be merged with .*backbone of type"):
            merge([str(first), str(other)], output=tmp_path / "out", coefficients=[1, 1])
    with pytest.raises(UserError, match=r"query_prompt 'ask: ', not 'query: '"):
        merge([str(first), str(run("b", query_prompt="ask: "))], output=tmp_path / "out")


def test_another_dimension_or_tokenizer_is_refused(run, bert_folder, tmp_path) -> None:
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

    wide, renamed = tmp_path / "wide", tmp_path / "renamed"
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    config = BertConfig.from_pretrained(bert_folder)
    BertModel(BertConfig(**{**config.to_dict(), "hidden_size": 64})).save_pretrained(wide)
    tokenizer.save_pretrained(wide)
    AutoModel.from_pretrained(bert_folder).save_pretrained(renamed)
    tokenizer.save_pretrained(renamed)
    content = (renamed / "tokenizer.json").read_text()
    (renamed / "tokenizer.json").write_text(content.replace('"passage"', '"passagf"'))
    first = run("a")
    for model, problem in ((wide, "embeddings of 64 numbers, not 32"), (renamed, "another tokenizer")):
        with pytest.raises(UserError, match=problem):
            merge([str(first)], base=str(model), output=tmp_path / "out", weight=0.5)
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "no model": (["--models", "[]"], "no model"),
    "one model, no weight": (["RUN"], "--weight"),
    "weight and data": (["RUN", "--weight", "0.5", "--data", "x"], "leave one"),
    "scan without data": (["RUN", "--scan", "[0.5]"], "--data"),
    "coefficients": (["RUN", "--coefficients", "[1, 2]"], "2 for 1 models"),
    "infinite": (["RUN", "--weight", "inf"], "inf"),
    "no such model": (["nothing/at/all", "--weight", "0.5"], "no such model"),
    "no such data": (["RUN", "--data", "nothing"], "nothing: no such file"),
    "no base": (["BERT", "--weight", "0.5"], "--base"),
    "untrained unknown": (["RUN", "--data", "DEV", "--scan", "[1]", "--protect_untrained"], "training.json"),
    "method": (["RUN", "--weight", "0.5", "--method", "cubic"], "cubic"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_line(run, dev, bert_folder, tmp_path, capsys, name: str) -> None:
    places = {"RUN": str(run("a", lora=LORA)), "DEV": str(dev), "BERT": str(bert_folder)}
    words, part = MISTAKES[name]
    capsys.readouterr()
    code = main(["merge", *(places.get(w, w) for w in words), "--output", str(tmp_path / "out")])
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-retrofit")]
    assert code == 2 and len(error) == 1 and part in error[0], error
    assert not (tmp_path / "out").exists()


def test_runs_of_different_bases_and_diverged_runs(run, bert_folder, tmp_path) -> None:
    import shutil

    copy = shutil.copytree(bert_folder, tmp_path / "copy")
    with pytest.raises(UserError, match="different bases"):
        merge([str(run("a")), str(run("b", model=copy))], output=tmp_path / "out")
    broken = run("c", lora=LORA)
    path = broken / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    next(iter(content["state_dict"].values()))[0, 0] = float("nan")
    torch.save(content, path)
    with pytest.raises(UserError, match="not finite"):
        merge([str(broken)], output=tmp_path / "out", weight=1.0)


def test_only_an_earlier_merge_is_replaced(run, tmp_path) -> None:
    folder = run("a", lora=LORA)
    with pytest.raises(UserError, match="not an earlier merge"):
        merge([str(folder)], output=folder, weight=0.5, overwrite=True)
    merge([str(folder)], output=tmp_path / "out", weight=0.5)
    with pytest.raises(UserError, match="--overwrite"):
        merge([str(folder)], output=tmp_path / "out", weight=0.5)
    merge([str(folder)], output=tmp_path / "out", weight=0.25, overwrite=True)
    assert json.loads((tmp_path / "out" / "merging.json").read_text())["weight"] == 0.25


def test_a_run_with_two_encoders_is_refused(two_encoders_run, bert_folder, tmp_path) -> None:
    with pytest.raises(UserError, match="has two encoders"):
        merge([str(bert_folder), str(two_encoders_run)], output=tmp_path / "out")
