"""``lit-retrofit plan`` as it is typed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from retrofit_kernels.cost import CARDS

from lit_retrofit.cli import main
from lit_retrofit.planning.parsing import count_devices

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture
def plan(bert_folder, tmp_path):
    def run(*words: str, device: str = "h100") -> dict:
        path = tmp_path / "plan.json"
        given = ["--model.encoder.model", str(bert_folder), "--device", device, "--json", str(path)]
        assert main(["plan", *given, "--output", str(tmp_path / "run"), *words]) == 0
        assert not (tmp_path / "run").exists()
        return json.loads(path.read_text())

    return run


def keys(value: dict) -> set[str]:
    return {*value, *(key for part in value.values() if isinstance(part, dict) for key in keys(part))}


def test_every_key_is_documented(plan) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## Plan a run")[1]
    missing = {key for key in keys(plan()) if f"`{key}`" not in section}
    assert not missing


def test_a_card_is_a_prediction_and_this_machine_is_measured(plan, capsys) -> None:
    card = plan("--model.encoder.lora.r=2")
    assert not card["measured"] and "prediction" in card["assumptions"][0]
    assert card["settings"]["precision"] == "bf16-mixed"
    assert plan("--model.graph_memory=auto")["settings"]["graph_memory"] is None
    assert "a prediction" in " ".join(capsys.readouterr().out.split())
    cpu = plan("--trainer.precision=32-true", device="cpu")
    assert cpu["measured"] and cpu["time"]["total"] > 0


def test_lengths_of_the_config_given_or_measured(plan, tmp_path) -> None:
    assert plan("--data.options.training_document_length=20")["texts"]["document_tokens"] == 20
    given = plan("--query_tokens=5", "--data.sampling.negatives=2")["texts"]
    assert (given["query_tokens"], given["document_tokens"], given["documents_per_query"]) == (5, 24, 3)
    # [CLS], "query: " as two tokens, letters of their own, [SEP]
    rows = [{"query": f"q {i:02}", "positive": f"the page {i:02}"} for i in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = plan(
        "--measure_data", "--data.options.train", f"[{tmp_path}/train.jsonl]",
        "--data.options.validation_share=0", "--data.sampling.batch_size=4",
    )["texts"]  # fmt: skip
    assert (found["query_tokens"], found["document_tokens"], found["documents_per_query"]) == (7, 8, 1)
    assert found["source"] == "the mean of 12 training records"


def test_all_devices_are_planned_for(plan, capsys) -> None:
    words = ("--data.sampling.batch_size=64", "--data.sampling.negatives=2")
    one, two = plan(*words), plan(*words, "--trainer.devices=2", "--trainer.num_nodes=2")
    assert "against all documents" in capsys.readouterr().out
    four = plan(*words, "--trainer.devices=4")
    assert "on 4 × h100" in capsys.readouterr().out
    assert (two["settings"]["devices"], two["settings"]["num_nodes"]) == (2, 2)
    assert (two["memory"], two["time"]) == (four["memory"], four["time"])
    # 16 queries and their 48 documents are a device's
    assert four["memory"]["embeddings"] == one["memory"]["embeddings"] / 4
    assert four["time"]["tokens"] == one["time"]["tokens"] == 64 * (16 + 3 * 24)
    assert four["time"]["forward"] == pytest.approx(one["time"]["forward"] / 4)
    assert four["time"]["examples_per_hour"] == pytest.approx(64 * 3600 / four["time"]["total"])
    assert 0 <= four["largest_batch_kept"] - 4 * one["largest_batch_kept"] < 4
    assert "4 devices share" in four["assumptions"][-1]
    shared = plan("--trainer.devices=2", "--trainer.precision=32-true", device="cpu")
    assert shared["memory"]["available"] < 0.75 * plan(device="cpu")["memory"]["available"]


@pytest.mark.parametrize("by", ["--trainer.strategy=sharded", "--config=configs/trainer/fsdp.yaml"])
def test_split_weights_are_planned_for(plan, by: str) -> None:
    words = ("--trainer.devices=4", "--trainer.precision=bf16-mixed")
    whole, split = (plan(*more, *words) for more in ((), (by,)))
    assert (whole["settings"]["sharded"], split["settings"]["sharded"]) == (False, True)
    trained = whole["parameters"]["trainable"]
    assert split["memory"]["optimizer"] == pytest.approx(8 * trained / 4, abs=8)
    assert split["memory"]["weights"] == pytest.approx(1.25 * whole["memory"]["weights"], rel=1e-3)
    assert "its part of the weights" in split["assumptions"][-1]
    assert "holds all weights" in whole["assumptions"][-1]
    alone = plan(by, "--trainer.precision=bf16-mixed", "--trainer.devices=1")
    assert alone["memory"] == plan("--trainer.precision=bf16-mixed")["memory"]


@pytest.mark.parametrize(
    ("given", "count"),
    [(3, 3), ("3", 3), ("auto", 1), (-1, 1), ("-1", 1), ([2, 5], 2), ("0,1,4", 3), ("4,", 1)],
)
def test_how_many_devices_are_meant(given: int | str | list[int], count: int) -> None:
    assert count_devices(given) == count


def test_nothing_is_said_of_texts_that_fit_will_pack(plan, caplog) -> None:
    plan("--model.encoder.lora.r=2", "--model.encoder.dropout=0")
    plan("--model.encoder.lora.r=2", device="cpu")
    assert "padded" not in caplog.text
    # in 32 bits a GPU pads indeed
    plan("--trainer.precision=32-true")
    assert "variable-length attention takes 16-bit numbers" in caplog.text


def test_what_does_not_fit_is_said(plan, monkeypatch) -> None:
    made = plan("--data.sampling.batch_size=1000000000")
    assert made["verdict"].startswith("does not fit") and 1 < made["largest_batch"] < 10**9
    assert f"{made['largest_batch']:,}" in made["verdict"]
    monkeypatch.setitem(CARDS, "h100", replace(CARDS["h100"], memory=0))
    made = plan()
    assert made["verdict"].startswith("can never fit: weights, gradients and optimizer alone")
    assert made["largest_batch"] == made["largest_batch_kept"] == 0 and not made["memory"]["fits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device=h800"], "there are cpu, rtx3090, rtx4080, rtx4090"),
        (["--device=t4", "--trainer.precision=bf16-mixed"], "16-mixed"),
        (["--device=h100", "--trainer.devices=0"], "trainer.devices is 0"),
        (["--device=h100", "--query_tokens=0"], "--query_tokens is 0"),
        (["--device=h100", "--model.temprature=1"], "temprature"),
        (["--device=h100", "--model.document_encoder.model=SAME"], "a plan is of one encoder"),
    ],
)
def test_mistakes_take_one_line(words: list[str], message: str, bert_folder, capsys) -> None:
    words = [word.replace("SAME", str(bert_folder)) for word in words]
    assert main(["plan", "--model.encoder.model", str(bert_folder), *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lit-retrofit plan: error: ") and message in line
