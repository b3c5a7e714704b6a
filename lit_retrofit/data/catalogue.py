"""Named sources: a YAML file of configs/data/sources each, with the page and the licence of its data."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path

from lit_retrofit.data.source_options import SourceOptions
from lit_retrofit.errors import UserError

PREFIX = "source:"


def config_folder() -> Path:
    """The shipped configs: beside the package's modules where it is installed, else in its checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def source_files() -> dict[str, Path]:
    """The file of each named source, by name."""
    folder = config_folder() / "data" / "sources"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def resolve_source(source: SourceOptions) -> SourceOptions:
    """What a ``source:NAME`` stands for, with the settings given beside it; other sources as they are.

    Args:
        source: its path may be ``source:NAME``, or ``source:`` and the path of a YAML file of the same kind.

    Raises:
        UserError: no source has this name, or its file is no source.
    """
    if not source.path.startswith(PREFIX):
        return source
    named = _read(source.path.removeprefix(PREFIX))
    plain = SourceOptions(path="")
    given = {
        option.name: value
        for option in fields(source)
        if (value := getattr(source, option.name)) != getattr(plain, option.name) and option.name != "path"
    }
    return replace(named, **given)


@lru_cache(maxsize=256)
def _read(name: str) -> SourceOptions:
    files = source_files()
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{PREFIX}{name}: no such file; check the path")
    elif name in files:
        path = files[name]
    else:
        raise UserError(
            f"{PREFIX}{name}: no source has this name; there are {', '.join(files)}; or name a YAML file of "
            "your own"
        )
    source = _parse(path)
    if source.path.startswith(PREFIX):
        raise UserError(f"{path}: its path is a named source itself; write where the data is")
    return source if source.name else replace(source, name=path.stem)


def _parse(path: Path) -> SourceOptions:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SourceOptions)
    try:
        settings = parser.parse_path(path)
    except Exception as error:  # jsonargparse and its YAML loader raise many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no source's settings ({reason:.300}); correct the file") from None
    return SourceOptions(**settings.as_dict())
