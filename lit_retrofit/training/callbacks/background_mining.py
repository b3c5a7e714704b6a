"""Mining beside the training: `mine` on a snapshot of the weights, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError


class BackgroundMining:
    """A mining under way. Nothing is left of the process when this one has ended, even by kill -9.

    Args:
        options: of `lit-retrofit mine`, by name; numbers and strings.
        log: where what it prints goes.
    """

    def __init__(self, options: dict[str, Any], log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        paths = os.pathsep.join(path for path in sys.path if path)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lit_retrofit.mining.child", json.dumps(options)],
                stdin=subprocess.PIPE, stdout=file, stderr=file,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C is for the run, which ends this when it has saved its state
            )  # fmt: skip

    def check(self) -> None:
        """Nothing while it works or is done.

        Raises:
            UserError: it has failed.
        """
        status = self._process.poll()
        if status:
            lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {status}")
            raise UserError(f"mining in the background failed: {last[:300]} (see {self._log})")

    def wait(self) -> None:
        """Until it is done.

        Raises:
            UserError: it has failed.
        """
        self._process.wait()
        self.check()

    def stop(self) -> None:
        """Ends it, if it still works."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
