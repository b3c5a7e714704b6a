"""``mine`` in a process of its own, which ends with the one that started it."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from lit_retrofit.errors import UserError
from lit_retrofit.mining.mine import mine


def run(options: dict[str, Any]) -> int:
    """Mines; returns the exit status, 2 for a user's mistake, which is then the last line of stderr.

    Args:
        options: of `mine`, by name.
    """
    try:
        mine(options.pop("model"), output=Path(options.pop("output")), **options)
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _end_with_parent() -> None:
    """Standard input is a pipe that the parent holds open; it closes however the parent dies."""
    while os.read(0, 1):  # not through sys.stdin, whose lock this thread would hold when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    os.nice(10)  # training goes first
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run(json.loads(sys.argv[1])))
