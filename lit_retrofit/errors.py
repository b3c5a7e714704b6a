"""The one exception that a user's mistake raises: a single line, exit status 2."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """A mistake in the user's input, told in one line: what is wrong, where, and what to do.

    The command line prints the message without a traceback and ends with status 2.
    """


def bad_field(path: str | Path, line: int, field: str, problem: str, remedy: str) -> UserError:
    """A fault in one field of one record, for instance ``train.jsonl:17: field 'positive' is null; …``.

    Args:
        path: the file as the user named it.
        line: its line (text formats) or row (tables) number, from 1.
        field: the field's name.
        problem: what is wrong, continuing "field 'x' …".
        remedy: what the user can do.
    """
    return UserError(f"{path}:{line}: field '{field}' {problem}; {remedy}")


class Interrupted(Exception):
    """A run that a signal ended after its state was saved.

    The command line prints the message, where there is one, and ends with status 128 + the signal's number.

    Args:
        message: one line that says how to go on; empty on all ranks but the first.
        signal_number: the signal's.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it ends a command as Ctrl-C does: what is open is closed, and processes are ended."""
