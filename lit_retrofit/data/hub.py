"""Rows of a data set on the Hugging Face hub, or of a local folder in a layout that hub data sets have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
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
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise UserError(
            f"{source}: no hub data set's name; write hf:org/name, hf:org/name:config or hf:org/name@split"
        )
    dataset = load_split(source, match["name"], match["config"], match["split"] or "train")
    if not len(dataset):
        raise UserError(f"{source}: the data set has no rows; choose another split with @split")
    yield from enumerate(dataset, 1)


def load_split(
    source: str, name: str, config: str | None, split: str, revision: str | None = None
) -> Dataset:
    """Loads one split of a hub data set, or of a local folder laid out like one.

    Args:
        source: what the user asked for, for messages.
        name: ``org/name``, or a folder.
        config: the configuration, where there are several.
        split: its split.
        revision: a commit of the hub's repository; the newest by default.

    Raises:
        UserError: it is unknown, or out of reach.
    """
    import datasets

    with reaching(source):
        return datasets.load_dataset(name, config, split=split, revision=revision)


@contextmanager
def reaching(source: str) -> Iterator[None]:
    """Turns what ``datasets`` and the hub's client raise into the user's error.

    Args:
        source: what the user asked for, for messages.

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
        raise UserError(
            f"{source}: the data set could not be loaded ({reason:.300}); "
            "check the name, the configuration, @split and the network, or name local files"
        ) from None
