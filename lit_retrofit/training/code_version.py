"""Which code a run was made with."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def code_version() -> dict[str, str]:
    """The package's version and, where it runs out of a git checkout, the commit, marked if files differ."""
    try:
        found = {"lit-retrofit": version("lit-retrofit")}
    except PackageNotFoundError:
        found = {}
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["commit"] = commit + (
            "+changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
        )
    return found


def _git(*words: str) -> str:
    """What git says of the package's folder; nothing where there is no git, or another project's."""
    package = Path(__file__).parents[1]
    inside = ["ls-files", "--error-unmatch", "cli.py"]
    answers = []
    for question in (inside, list(words)):
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *question], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if done.returncode != 0:
            return ""
        answers.append(done.stdout.strip())
    return answers[-1]
