"""Rows of a data set on the Hugging Face hub, or of a local folder in a layout that hub data sets have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_retrofit.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf:"
_SOURCE = re.compile(r"hf:(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<split>[^@]+))?")


def read_hub(source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Streams a data set's rows from the local Arrow cache, downloading it first where needed.

    Code that a data set brings along is never run.

    Args:
        source: ``hf:org/name``, ``hf:org/name:config`` or ``hf:./folder``, with ``@split`` behind it
            for another split than ``train``; ``datasets`` slices such as ``@train[:1%]`` work too.

    Yields:
        The row's number, from 1, and the row.

    Raises:
        UserError: the source is malformed, unknown, empty or out of reach.
    """
    name, config, split = parse(source)
    dataset = load(source, name, config, split)
    if not len(dataset):
        raise UserError(f"{source}: the data set has no rows; choose another split with @split")
    yield from enumerate(dataset, 1)


def hub_files(source: str) -> list[Path]:
    """The Arrow files of a data set in the local cache, for reading them in parts.

    Raises:
        UserError: as `read_hub`, or only a slice of a split is named.
    """
    dataset = load(source, *parse(source))
    if dataset.num_rows != sum(part["num_examples"] for part in _whole_split(dataset)):
        raise UserError(
            f"{source}: a slice of a split cannot be streamed; name the split, or leave stream out"
        )
    return [Path(file["filename"]) for file in dataset.cache_files]


def _whole_split(dataset: Dataset) -> list[dict[str, int]]:
    name = str(dataset.split).partition("[")[0]
    splits = dataset.info.splits or {}
    return [{"num_examples": splits[name].num_examples}] if name in splits else []


def parse(source: str) -> tuple[str, str | None, str]:
    """The parts of ``hf:name[:config][@split]``.

    Raises:
        UserError: it has another form.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise UserError(
            f"{source}: no hub data set's name; write hf:org/name, hf:org/name:config or hf:org/name@split"
        )
    return match["name"], match["config"], match["split"] or "train"


def load(source: str, name: str, config: str | None, split: str | None, revision: str | None = None) -> Any:
    """Loads a split, or all splits of a configuration by their names.

    Args:
        source: as the user named it, for messages.
        name: of the data set, or a local folder.
        config: the configuration; the only or default one where None.
        split: None gives a dictionary of them.
        revision: a commit of the hub's repository; the newest by default.

    Returns:
        A ``datasets.Dataset``, or a ``DatasetDict``.

    Raises:
        UserError: the hub, the data set, the configuration or the split is out of reach.
    """
    import datasets

    with reaching(source, name):
        return datasets.load_dataset(name, config, split=split, revision=revision)


@contextmanager
def reaching(source: str, name: str) -> Iterator[None]:
    """Turns what ``datasets`` and the hub's client raise into the user's error.

    Args:
        source: as the user named it, for messages.
        name: of the data set.

    Raises:
        UserError: the body met an unknown name, configuration or split, or a hub out of reach.
    """
    import datasets
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    # what load_dataset is seen to raise: unknown names, configurations and splits, offline mode,
    # no network, a gated data set, damaged files, data sets that need code of their own
    faults = (datasets.exceptions.DatasetsError, HfHubHTTPError, httpx.HTTPError, OSError, ValueError)
    try:
        yield
    except (*faults, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "gated" in reason:
            raise UserError(
                f"{source}: the data set is gated; accept its terms at "
                f"https://huggingface.co/datasets/{name} and log in with `hf auth login`"
            ) from None
        raise UserError(
            f"{source}: the data set could not be loaded ({reason:.300}); "
            "check the name, the configuration, @split and the network, or name local files"
        ) from None
