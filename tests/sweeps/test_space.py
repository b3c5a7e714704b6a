"""Sweep files: what is read, W&B's own agent as the oracle of the words, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lit_retrofit.errors import UserError
from lit_retrofit.sweeps.space import read_sweep, words_of

ROOT = Path(__file__).parents[2]
FILE = {
    "method": "random",
    "run_cap": 5,
    "metric": {"name": "val/nDCG@10", "goal": "maximize"},
    "parameters": {
        "a.b": {"values": [1, "two", [3, 4], None, True]},
        "c": {"value": 0.5},
        "d": {"min": 1, "max": 4},
        "e": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0},
        "f": {"values": ["x", "y"], "probabilities": [0.9, 0.1]},
    },
    "command": ["${env}", "lit-retrofit", "fit", "--config", "my.yaml", "${args}"],
}


def written(folder: Path, **changes) -> Path:
    content = {key: value for key, value in {**FILE, **changes}.items() if value is not ...}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return folder / "sweep.yaml"


def test_a_file_is_read(tmp_path) -> None:
    sweep = read_sweep(written(tmp_path))
    assert (sweep.name, sweep.method, sweep.metric, sweep.maximize) == (
        "sweep",
        "random",
        "val/nDCG@10",
        True,
    )
    assert sweep.words == ("--config", "my.yaml") and sweep.run_cap == 5
    by_name = {parameter.name: parameter for parameter in sweep.parameters}
    assert by_name["a.b"].values == (1, "two", [3, 4], None, True)
    assert by_name["d"].distribution == "int_uniform" and by_name["d"].examples == (1, 4)
    assert by_name["e"].examples == (1e-4, 1.0) and by_name["f"].probabilities == (0.9, 0.1)


def test_the_words_are_those_of_wandbs_own_agent() -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    values = {"a.b": [1, "x"], "c": True, "d": 1e-05, "e": None, "f": "two words", "g": {"path": "p"}}
    theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    assert words_of(values) == theirs["args"]


LOGARITHMIC = {"distribution": "log_uniform_values"}
MISTAKES = {
    "method": ({"method": "hyper"}, "field 'method' is 'hyper'"),
    "unknown field": ({"methods": "grid"}, "field 'methods' is unknown"),
    "no metric": ({"metric": ...}, "field 'metric'"),
    "goal": ({"metric": {"name": "x", "goal": "best"}}, "metric.goal"),
    "no parameters": ({"parameters": {}}, "field 'parameters'"),
    "cap": ({"run_cap": 0}, "run_cap"),
    "no command": ({"command": ...}, "field 'command' must be a list"),
    "another program": ({"command": ["python", "train.py", "${args}"]}, "does not run lit-retrofit fit"),
    "no args": ({"command": ["lit-retrofit", "fit"]}, "${args}"),
    "macro": ({"command": ["lit-retrofit", "fit", "${args}", "${args_json}"]}, "${args_json}"),
    "nested": ({"parameters": {"model": {"parameters": {"x": {"value": 1}}}}}, "write dots"),
    "number as a word": ({"parameters": {"lr": {"values": ["1e-5"]}}}, "'1e-5'; write the number as 1.0e-5"),
    "empty": ({"parameters": {"x": {"values": []}}}, "parameter 'x'"),
    "order": ({"parameters": {"x": {"min": 2, "max": 1}}}, "min 2 and max 1"),
    "half a range": ({"parameters": {"x": {"min": 2}}}, "max None"),
    "logarithm": ({"parameters": {"x": {"min": 0, "max": 1, **LOGARITHMIC}}}, "above 0"),
    "distribution": ({"parameters": {"x": {"min": 0, "max": 1, "distribution": "beta"}}}, "'beta'"),
    "shares": ({"parameters": {"x": {"values": [1, 2], "probabilities": [0.5, 0.4]}}}, "1 together"),
    "project": ({"project": 5}, "field 'project' is 5"),
    "entity": ({"entity": ""}, "field 'entity' is ''"),
    "typo": ({"parameters": {"x": {"vaules": [1]}}}, "'vaules'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(tmp_path, name: str) -> None:
    changes, part = MISTAKES[name]
    with pytest.raises(UserError) as fault:
        read_sweep(written(tmp_path, **changes))
    assert part in str(fault.value) and "sweep.yaml" in str(fault.value)


def test_files_that_are_none(tmp_path) -> None:
    with pytest.raises(UserError, match="no such sweep file"):
        read_sweep(tmp_path / "none.yaml")
    for text, part in (("a: [", "no valid YAML"), ("- a", "not a sweep")):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(UserError, match=part):
            read_sweep(tmp_path / "s.yaml")


def test_project_and_entity_are_read(tmp_path) -> None:
    sweep = read_sweep(written(tmp_path, project="mine", entity="us"))
    assert (sweep.project, sweep.entity) == ("mine", "us")
    assert (read_sweep(written(tmp_path)).project, read_sweep(written(tmp_path)).entity) == (None, None)


SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_wandbs_own_agent_starts_fit_with_the_trials_words(file: Path, tmp_path, monkeypatch) -> None:
    """The server hands the file's `program` on to the agent, which needs one whatever the command is."""
    from wandb import wandb_agent

    started = []
    monkeypatch.setattr(
        wandb_agent, "AgentProcess", lambda command, **_: started.append(command) or Started()
    )
    for name, value in (("DIR", str(tmp_path)), ("SWEEP_ID", "s"), ("RUN_ID", ""), ("SWEEP_PARAM_PATH", "")):
        monkeypatch.setenv(f"WANDB_{name}", value)  # the agent sets the last two itself
    content = yaml.safe_load(file.read_text())
    values = {parameter.name: parameter.examples[0] for parameter in read_sweep(file).parameters}
    agent = wandb_agent.Agent(api=None, queue=None, sweep_id="s")
    agent._sweep_command = content["command"]
    order = {"type": "run", "run_id": "r", "args": {name: {"value": value} for name, value in values.items()}}
    given = {"program": content["program"]} if "program" in content else {}
    assert agent._process_command({**order, **given})["result"] is None and len(started) == 1
    env, *words = started[0]
    assert Path(env).name == "env" and words[:3] == ["lit-retrofit", "fit", "--config"]
    assert (ROOT / words[3]).is_file() and words[4:] == words_of(values)


class Started:
    """A trial's process."""


def test_shipped_sweeps_are_read_and_name_their_file() -> None:
    assert len(SHIPPED) >= 4
    for file in SHIPPED:
        sweep = read_sweep(file)
        assert sweep.name == file.stem and sweep.metric == "val/nDCG@10" and sweep.maximize
