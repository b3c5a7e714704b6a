"""Whether two evaluations measured the same thing, so that their scores may be set against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import Results, TaskScores

REMEDY = "evaluate both models on the same data with the same options"
_SETTINGS = ("split", "pivot", "candidates")
TaskKey = tuple[str, "str | None", "str | None"]


def check_alike(first: Results, second: Results, names: tuple[object, object]) -> None:
    """Refuses evaluations whose scores cannot be compared.

    Args:
        first: one evaluation.
        second: the other one.
        names: of the two, for messages: the folders, or the models.

    Raises:
        UserError: the two differ in data, split, pivot, candidates, tasks, or in how many queries or
            documents a task has.
    """
    _check("data", first.data, second.data, names)
    for setting in _SETTINGS:
        _check(setting, first.settings.get(setting), second.settings.get(setting), names)
    old, new = ({task_key(task): _size(task) for task in results.tasks} for results in (first, second))
    for name, missing in ((names[1], old.keys() - new.keys()), (names[0], new.keys() - old.keys())):
        if missing:
            labels = ", ".join(sorted(map(task_label, missing)))
            raise UserError(f"{name} lacks tasks that the other evaluation has ({labels}); {REMEDY}")
    for key, size in old.items():
        _check(f"task {task_label(key)}", size, new[key], names)


def task_key(task: TaskScores) -> TaskKey:
    """What names a task in an evaluation."""
    return task.kind, task.query_language, task.corpus_language


def task_label(key: TaskKey) -> str:
    """The same for people."""
    return key[0] if key[1] is None else f"{key[1]} → {key[2]}"


def _size(task: TaskScores) -> str:
    return f"{task.queries} queries and {task.documents} documents"


def _check(what: str, old: Any, new: Any, names: tuple[object, object]) -> None:
    if _plain(old) != _plain(new):
        raise UserError(f"{what} differs: {old} in {names[0]}, {new} in {names[1]}; {REMEDY}")


def _plain(value: Any) -> Any:
    """One path spelt in two ways, with ./ or a slash at its end, is one."""
    return Path(value) if isinstance(value, str) else value
