"""What control groups leave a process of the machine's memory: batch systems and containers limit it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Version:
    """Where a version of control groups has its figures.

    Attributes:
        folder: of the groups, below that of all.
        controllers: what a line of /proc/self/cgroup names them.
        limit: a file.
        used: a file.
        cache: in memory.stat: the part of what is used that files take and give back when asked.
    """

    folder: str
    controllers: str
    limit: str
    used: str
    cache: str


_VERSIONS = (
    _Version("", "", "memory.max", "memory.current", "inactive_file"),
    _Version("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def left_in_groups(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the process's group and those around it may still take; infinite where none has a limit."""
    left = math.inf
    for version in _VERSIONS:
        top = groups / version.folder
        group = top / _own_path(own, version.controllers)
        for folder in (group, *group.parents):
            left = min(left, _left(folder, version))
            if folder == top:
                break
    return left


def _own_path(own: Path, controllers: str) -> str:
    """Of the process's group; in a container it may be one that only the machine around it sees."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return ""
    return next((line[2].lstrip("/") for line in lines if controllers in line[1].split(",")), "")


def _left(folder: Path, version: _Version) -> float:
    try:
        limit = (folder / version.limit).read_text().strip()
        used = int((folder / version.used).read_text())
        figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return math.inf if limit == "max" else max(0, int(limit) - used + int(figures.get(version.cache, 0)))
    except (OSError, ValueError):
        return math.inf
