"""SIGTERM outside of the training steps, where nothing has to be saved: the command stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lit_retrofit.errors import Terminated


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM what Ctrl-C is, but for the exit status. A second one ends the process.

    Lightning only notes the signal, and ends with status 0 sooner or later. It calls the handler that it
    finds after its own. While steps are trained, `Interruption` takes the signal instead.

    Raises:
        Terminated: the signal came.
    """
    if threading.current_thread() is not threading.main_thread():  # Python takes signals only there
        yield
        return
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated
