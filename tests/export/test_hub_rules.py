"""Model cards keep the hub's rules, so that a push is not refused; and the rules see what breaks them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lit_retrofit.evaluation.results import Results, TaskScores
from lit_retrofit.export.card import Exported, write_card
from lit_retrofit.model.encoder import EncoderOptions

from .hub_rules import head_of, problems
from .test_card import SETTINGS, TRAINING

LANGUAGES = {"no": 1, "zh_Hans": 2, "deu_Latn": 3, "pt-BR": 4, "English": 5, "unknown": 6}


def evaluated(kind: str) -> Results:
    """On data whose name is none for the hub."""
    score = {"V-measure": 0.5} if kind == "clustering" else {"nDCG@10": 1 / 3}
    pairs = {"monolingual": ("no", "no"), "cross_lingual": ("no", "en"), "clustering": ("no", "no")}
    query, corpus = pairs.get(kind, (None, None))
    task = TaskScores(kind, query, corpus, 5, 9, 0, score)
    return Results(0.0, 1.0, "m", "runs/meine Daten für später/", {"split": "test"}, (task,))


def head(folder: Path, *, kind: str = "monolingual", format: str = "onnx", **options: Any) -> dict[str, Any]:
    training = {**TRAINING, "data": {**TRAINING["data"], "languages": LANGUAGES}}
    model = EncoderOptions(model="intfloat/multilingual-e5-small")
    after = {"after": evaluated(kind)}
    write_card(folder, Exported(format, model, SETTINGS, training, evaluations=after, **options))
    return head_of((folder / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("format", ["sentence-transformers", "transformers", "onnx"])
@pytest.mark.parametrize("kind", ["monolingual", "cross_lingual", "all", "clustering"])
def test_cards_keep_the_rules(tmp_path, format: str, kind: str) -> None:
    found = head(tmp_path, kind=kind, format=format)
    assert problems(found) == []
    assert found["language"] == ["deu", "no", "pt", "zh"]
    assert found["base_model"] == "intfloat/multilingual-e5-small"
    (result,) = found["model-index"][0]["results"]
    metric = ("v_measure", 0.5) if kind == "clustering" else ("ndcg_at_10", 0.33333)
    assert (result["metrics"][0]["type"], result["metrics"][0]["value"]) == metric
    assert result["task"]["type"] == ("Clustering" if kind == "clustering" else "Retrieval")


def test_a_merges_card_keeps_the_rules(tmp_path) -> None:
    merging = {"origin": "a/b/c", "origin_is_folder": False, "models": ["x"], "coefficients": [1.0]}
    merging |= {"weight": 0.5, "method": "slerp", "measure": "nDCG@10", "data": None, "scan": []}
    found = head(tmp_path, merging=merging)
    assert problems(found) == [] and "base_model" not in found


def put(content: dict[str, Any], *path: Any, value: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value


RESULT = ("model-index", 0, "results", 0)
BROKEN: list[tuple[tuple[Any, ...], Any]] = [
    (("language",), ["English"]),
    (("language",), [False]),
    (("license",), "my-own"),
    (("license",), "other"),
    (("tags",), "retrieval"),
    (("tags",), ["retrieval", 3]),
    (("tags",), ["retrieval", "retrieval"]),
    (("pipeline_tag",), "retrieval"),
    (("base_model",), "/home/me/e5"),
    (("base_model",), "a/b/c"),
    (("library_name",), "My Library"),
    (("model-index",), []),
    ((*RESULT, "task"), {}),
    ((*RESULT, "dataset", "type"), "meine Daten"),
    ((*RESULT, "dataset", "name"), ""),
    ((*RESULT, "metrics", 0, "value"), "high"),
    ((*RESULT, "metrics", 0, "value"), float("nan")),
]


@pytest.mark.parametrize(("path", "value"), BROKEN, ids=lambda part: str(part)[-40:])
def test_what_breaks_a_rule_is_seen(tmp_path, path: tuple[Any, ...], value: Any) -> None:
    broken = copy.deepcopy(head(tmp_path))
    put(broken, *path, value=value)
    found = {problem.split(":")[0] for problem in problems(broken)}
    assert found and found <= {path[0], f"{path[0]}_name"}


def test_another_licence_needs_a_name(tmp_path) -> None:
    found = head(tmp_path)
    assert problems({**found, "license": "other", "license_name": "my-terms"}) == []
    assert problems({**found, "license": "apache-2.0"}) == []
