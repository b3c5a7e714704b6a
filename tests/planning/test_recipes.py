"""Every recipe is taken by `fit`'s parser and by `plan`."""

from __future__ import annotations

import json

import pytest

from lit_retrofit.cli import main
from lit_retrofit.data.catalogue import config_folder
from lit_retrofit.sweeps.checking import fit_parser

RECIPES = sorted((config_folder() / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_accepted_by_fit_and_planned(path, bert_folder, tmp_path):
    fit_parser(["--config", str(path)])
    written = tmp_path / "plan.json"
    model = ["--model.encoder.model", str(bert_folder), "--data.options.training_document_length", "24"]
    model += ["--model.encoder.query_max_length", "16", "--model.encoder.document_max_length", "24"]
    words = ["plan", "--config", str(path), *model, "--device", "a100", "--json", str(written)]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    plan = json.loads(written.read_text())
    assert plan["memory"]["fits"] and plan["time"]["total"] > 0
