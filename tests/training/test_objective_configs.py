"""The example configurations are read by the command line, to the options that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lit_retrofit.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


def printed(capsys, *words: str) -> dict:
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, "--print_config"])
    assert ended.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def objective(capsys, *words: str) -> dict:
    return printed(capsys, *words)["model"]["objective"]


def test_matryoshka(capsys) -> None:
    found = objective(capsys, "--config", str(CONFIGS / "objective" / "matryoshka.yaml"))
    assert found["info_nce"]["prefixes"] == [64, 128, 256, 384]
    assert found["info_nce"]["prefix_weights"] == [0.5, 0.5, 1.0, 1.0]


def test_distillation_stacked_on_others(capsys) -> None:
    files = ("model/lora.yaml", "data/mined.yaml", "objective/matryoshka.yaml", "objective/distillation.yaml")
    found = printed(capsys, *(word for name in files for word in ("--config", str(CONFIGS / name))))
    options = found["model"]["objective"]
    assert options["distillation"] == {"weight": 1.0, "teacher_temperature": 1.0, "temperature": None}
    assert options["info_nce"]["false_negatives"] == {"rule": "margin", "value": 0.1}
    assert options["info_nce"]["prefixes"] == [64, 128, 256, 384]  # of the file before
    assert found["data"]["sampling"]["negatives"] == 4


def test_every_example_is_read(capsys) -> None:
    files = sorted((CONFIGS / "objective").glob("*.yaml"))
    assert len(files) >= 2
    for path in files:
        assert objective(capsys, "--config", str(path))


def test_options_on_the_command_line(capsys) -> None:
    words = {
        "temperature": "0.05",
        "learn_temperature": "true",
        "info_nce.guide.value": "0.0",
        "info_nce.both_directions": "true",
        "margin_mse.teacher_scale": "0.05",
        "embedding_matching.dimension": "1024",
        "spread_out.weight": "0.1",
    }
    found = objective(capsys, *(f"--model.objective.{name}={value}" for name, value in words.items()))
    assert (found["temperature"], found["learn_temperature"]) == (0.05, True)
    assert found["info_nce"]["guide"] == {"value": 0.0, "rule": "margin"}
    assert found["info_nce"]["both_directions"] is True
    assert found["margin_mse"] == {"weight": 1.0, "teacher_scale": 0.05}
    assert found["embedding_matching"] == {"dimension": 1024, "weight": 1.0}
    assert found["spread_out"] == {"weight": 0.1}
    assert found["distillation"] is None
