"""The recipe for documents without queries, from the first command to the last, at a tiny size."""

from __future__ import annotations

import json

import pytest

from lit_retrofit.cli import main
from lit_retrofit.data.catalogue import config_folder
from lit_retrofit.data.formats import read_records
from lit_retrofit.quickstart.embedded_data import resolve_data


@pytest.mark.slow
def test_documents_become_a_merged_model(tmp_path, bert_folder, monkeypatch):
    recipe = config_folder().resolve() / "recipes" / "domain.yaml"
    pages = {
        r.positives[0].text for r in read_records(resolve_data("quickstart:train"))[0] if r.language == "en"
    }
    rows = [{"_id": f"d{i}", "text": text, "language": "en"} for i, text in enumerate(sorted(pages)[:60])]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(bert_folder)
    commands = [
        "synthesize corpus.jsonl --output runs/domain/synthetic.jsonl",
        "clean runs/domain/synthetic.jsonl --output runs/domain/clean.jsonl"
        " --leakage.against [quickstart:test]",
        f"mine {model} --data runs/domain/clean.jsonl --output runs/domain/mined.jsonl --pool language"
        " --max_length 24 --min_negatives 0",
        f"fit --config {recipe} --model.encoder.model {model} --trainer.max_steps 2"
        " --model.encoder.query_max_length 16 --model.encoder.document_max_length 24"
        " --data.options.training_document_length 24"
        " --data.sampling.batch_size 8 --wandb false --trainer.accelerator cpu",
        "merge runs/domain/fit --weight 0.6 --output runs/domain/merged",
        "evaluate runs/domain/merged --data quickstart:test --output runs/domain/after-merged",
    ]
    for command in commands:
        assert main(command.split()) == 0, command
    made = read_records(tmp_path / "runs/domain/synthetic.jsonl")[0]
    # Where the query is a first sentence, its document is the rest.
    assert len(made) >= 60
    assert all(any(record.positives[0].text in page for page in pages) for record in made)
    assert json.loads((tmp_path / "runs/domain/fit/training.json").read_text())["steps"] == 2
    assert json.loads((tmp_path / "runs/domain/merged/merging.json").read_text())["weight"] == 0.6
    scores = json.loads((tmp_path / "runs/domain/after-merged/metrics.json").read_text())["means"]
    assert 0 < scores["monolingual"]["nDCG@10"] < 1
