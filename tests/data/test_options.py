"""Options as users write them: from YAML and the command line, refused in one line where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningArgumentParser

from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.data.options import (
    DataOptions,
    SamplingOptions,
    SourceOptions,
    check_options,
    check_sampling,
)
from lit_retrofit.errors import UserError

MIXTURE = Path(__file__).parents[2] / "configs" / "data" / "mixture.yaml"


def parsed(*arguments: str) -> RetrievalData:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_lightning_class_args(RetrievalData, "data")
    return parser.instantiate_classes(parser.parse_args(list(arguments))).data


def test_sources_on_the_command_line() -> None:
    data = parsed(
        "--data.options.train",
        "[a.jsonl, {path: b.parquet, stream: true, weight: 2}]",
        "--data.sampling.homogeneous",
        "[source, language]",
    )
    assert data.options.train == ("a.jsonl", SourceOptions("b.parquet", stream=True, weight=2.0))
    assert data.options.sources[0] == SourceOptions("a.jsonl")
    assert data.sampling.homogeneous == ("source", "language")


def test_the_example_of_a_mixture() -> None:
    data = parsed("--config", str(MIXTURE))
    check_options(data.options)
    check_sampling(data.sampling, data.options.sources)
    assert [source.label for source in data.options.sources] == ["web", "mined", "nli"]
    assert data.options.sources[2].temperature == 0.05


def test_a_setting_that_no_source_has() -> None:
    data = parsed("--data.options.train", "[{path: a, wieght: 2}]")
    with pytest.raises(UserError, match=r"wieght.* a setting that a source does not know.*weight"):
        check_options(data.options)


@pytest.mark.parametrize(("sources", "message"), [
    ([SourceOptions("a", weight=0.0)], "source 'a': weight is 0.0; it must be above 0"),
    ([SourceOptions("a", weight=-1.0)], "weight is -1.0"),
    ([SourceOptions("a", weight=float("nan"))], "weight is nan"),
    ([SourceOptions("a", temperature=0.0)], "temperature is 0.0"),
    ([SourceOptions("a", negatives=-1)], "negatives is -1; it must be at least 0"),
    ([SourceOptions("a", max_per_language=0)], "max_per_language is 0"),
    ([SourceOptions("a", shuffle_buffer=0)], "shuffle_buffer is 0"),
    ([SourceOptions("a", weight=1.0), "b"], "source 'b' has no weight, but others have"),
    (["a", SourceOptions("b", name="a")], "names 'a' twice"),
])  # fmt: skip
def test_senseless_settings_of_sources(sources, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check_options(DataOptions(train=tuple(sources)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "sources", "message"), [
    ({"homogeneous_share": 0.0, "homogeneous": ("source",)}, [], "homogeneous_share is 0.0"),
    ({"homogeneous_share": 0.5}, [], "not what is shared"),
    ({"alpha": 1.5}, [], "alpha is 1.5"),
    ({"alpha": 0.5}, [SourceOptions("a", weight=1.0)], "exclude each other"),
    ({"seed": -1}, [], "seed is -1"),
    ({}, [SourceOptions("a", temperature=0.1), SourceOptions("b")], "'a' has its own temperature"),
    (
        {"homogeneous": ("source",), "homogeneous_share": 0.5},
        [SourceOptions("a", temperature=0.1), SourceOptions("b")],
        "'a' has its own temperature",
    ),
])  # fmt: skip
def test_senseless_sampling(options, sources, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        check_sampling(SamplingOptions(**options), tuple(sources))
    assert "\n" not in str(error.value)
