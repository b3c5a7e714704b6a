"""Which options a run that goes on has changed: names, old and new values, and what does not count."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lit_retrofit.training.config_changes import changes

CONFIG: dict[str, Any] = {
    "output": "runs/a",
    "save_minutes": 10.0,
    "model": {
        "encoder": {"model": "a", "lora": None, "dropout": 0.1, "gradient_checkpointing": False},
        "objective": {"temperature": 0.1, "learn_temperature": False, "info_nce": {"prefixes": None}},
        "optimizer": {"learning_rate": 1e-3},
        "graph_memory": None,
        "document_encoder": None,
    },
    "data": {"options": {"train": ["a.jsonl"], "workers": 0}, "sampling": {"batch_size": 8}},
    "trainer": {
        "accumulate_grad_batches": 1,
        "logger": None,
        "callbacks": [{"class_path": "lit_retrofit.training.callbacks.AveragedWeights",
                       "init_args": {"decay": 0.9}}],
    },
}  # fmt: skip


def changed(**options: Any) -> dict[str, Any]:
    """The configuration with some options set, by names with two underlines for a dot."""
    config = copy.deepcopy(CONFIG)
    for name, value in options.items():
        *path, last = name.split("__")
        place = config
        for part in path:
            place = place[part]
        place[last] = value
    return config


@pytest.mark.parametrize(("options", "told"), [
    ({}, []),
    ({"output": "runs/b", "save_minutes": 0.0, "trainer__logger": False, "data__options__workers": 2,
      "model__graph_memory": 3.0, "model__encoder__gradient_checkpointing": True}, []),
    ({"model__optimizer__learning_rate": 1e-4, "trainer__accumulate_grad_batches": 4},
     ["model.optimizer.learning_rate 0.001 → 0.0001", "trainer.accumulate_grad_batches 1 → 4"]),
    ({"model__objective__temperature": 0.5}, ["model.objective.temperature 0.1 → 0.5"]),
    ({"model__objective__info_nce__prefixes": [8, 16]},
     ["model.objective.info_nce.prefixes unset → [8, 16]"]),
    ({"model__encoder__dropout": None}, ["model.encoder.dropout 0.1 → unset"]),
    ({"data__options__train": ["a" * 99]}, [f"data.options.train ['a.jsonl'] → ['{'a' * 55}…"]),
    ({"trainer__callbacks": None}, ["trainer.callbacks.AveragedWeights.decay 0.9 → unset"]),
    ({"trainer__gradient_clip_val": 1.0}, ["trainer.gradient_clip_val unset → 1.0"]),
])  # fmt: skip
def test_what_is_told(options: dict[str, Any], told: list[str]) -> None:
    assert changes(CONFIG, changed(**options)) == told


def test_where_a_learnt_temperature_began_does_not_count() -> None:
    learnt = {"model__objective__learn_temperature": True}
    assert changes(changed(**learnt), changed(**learnt, model__objective__temperature=0.5)) == []


def test_of_long_values_the_part_that_differs_is_shown() -> None:
    before = [f"data/part-{i}.jsonl" for i in range(20)]
    now = [*before[:15], "data/other.jsonl", *before[16:]]
    (told,) = changes(changed(data__options__train=before), changed(data__options__train=now))
    assert told.startswith("data.options.train …") and len(told) < 150
    old, new = told.split(" → ")
    assert "'data/part-15.jsonl', " in old and "'data/other.jsonl', " in new
