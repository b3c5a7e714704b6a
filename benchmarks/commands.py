"""Runs `lit-retrofit` as a user would, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What the console script does.
_ENTRY = "import sys; from lit_retrofit.cli import main; sys.exit(main())"


def lit_retrofit(*words: str | Path, log: Path | None = None) -> None:
    """Runs a command.

    Args:
        words: what stands behind `lit-retrofit`.
        log: a file that its output is added to; shown by default.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-c", _ENTRY, *map(str, words)]
    if log is None:
        subprocess.run(command, check=True)
        return
    with log.open("ab") as file:
        subprocess.run(command, check=True, stdout=file, stderr=file, stdin=subprocess.DEVNULL)


def last_line(log: Path) -> str:
    """The last line of a log that says something: why a command failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]
