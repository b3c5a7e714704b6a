"""The folder of several benchmarks: a folder of results for each, and one summary over them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError

if TYPE_CHECKING:
    from lit_retrofit.evaluation.results import Results

FORMAT = 1
SUMMARY = "benchmarks.json"
_NAMED = 3  # folders in a message


def summarise(results: Mapping[str, Results]) -> dict[str, Any]:
    """An entry for each benchmark and kind of task, and the mean nDCG@10 over the entries.

    Args:
        results: by benchmark, of one model.
    """
    entries: list[dict[str, Any]] = [
        {
            "benchmark": name,
            "kind": kind,
            "tasks": sum(task.kind == kind for task in one.tasks),
            "nDCG@10": means["nDCG@10"],
        }
        for name, one in results.items()
        for kind, means in one.means.items()
    ]
    return {
        "format": FORMAT,
        "model": next(iter(results.values())).model,
        "benchmarks": entries,
        "mean": sum(entry["nDCG@10"] for entry in entries) / len(entries),
    }


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes what `summarise` gives into the folder that has the benchmarks' folders."""
    with new_text_file(folder / SUMMARY, overwrite=True) as file:
        json.dump(summary, file, ensure_ascii=False, indent=1)
        file.write("\n")


def refuse_several(folder: Path) -> None:
    """Refuses a folder that is no evaluation but has some in it, as that of several benchmarks.

    Raises:
        UserError: it has, and no results of its own.
    """
    inside = sorted(path.parent.name for path in folder.glob("*/metrics.json"))
    if inside and not any((folder / name).is_file() for name in ("metrics.json", "queries.jsonl")):
        more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
        raise UserError(
            f"{folder}: no evaluation, but a folder with {len(inside)} ({', '.join(inside[:_NAMED])}{more}); "
            f"give one of them, such as {folder / inside[0]}"
        )
