"""Requests to a language model, its raw answers, and the log that keeps every answer that was paid for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from filelock import FileLock, Timeout

from lit_retrofit.errors import UserError


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model. Equal requests have equal keys, in every run and at every address.

    Attributes:
        model: its name, of a local one with its version: other weights give other answers.
        prompt: the text to continue, or the user's message where ``chat`` is set.
        chat: a message to an instructed model, rather than a text that a pre-trained one continues.
        max_tokens: the longest answer.
        temperature: of the sampling; 0 takes the likeliest token.
        seed: of the sampling.
        stop: the answer of a text to continue ends before this.
    """

    model: str
    prompt: str
    chat: bool
    max_tokens: int
    temperature: float
    seed: int
    stop: str | None = None

    @property
    def key(self) -> str:
        """Names the request in the log."""
        text = json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        key: of the request.
        text: as the model wrote it; empty where it wrote nothing.
        finish: ``stop``, ``length`` (cut off at ``max_tokens``), ``refusal`` or the endpoint's own word.
        input_tokens: of the request, as counted by the generator.
        output_tokens: of the answer.
    """

    key: str
    text: str
    finish: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer; it is asked again in the next run.

    Attributes:
        key: of the request.
        reason: in a few words, without any secret.
        refused: it was understood and not taken, as a text too long for the model is: others may well be.
    """

    key: str
    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that may be charged for, though its answer never came.

    Attributes:
        key: of the request.
        input_tokens: the most that it can be charged for.
        output_tokens: likewise.
    """

    key: str
    input_tokens: int
    output_tokens: int


Result = Answer | Failure | Lost


class Generator(Protocol):
    """A source of answers."""

    def generate(self, requests: Sequence[Request], stopped: Callable[[], bool]) -> Iterator[Result]:
        """One answer or failure for each request, in any order, and what was lost on the way.

        Once ``stopped()``, it begins no request and ends those under way.
        """
        ...


class AnswerLog:
    """An append-only file of answers, and of what else may be charged for; each is on disk before it is used.

    A process that is killed leaves at most half a line at the end, which the next one cuts off.

    Args:
        path: the file; made if missing, and never overwritten.

    Raises:
        UserError: another process holds it, or a line in it is no answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Answer] = {}
        self._lost: list[Lost] = []
        self._lock = FileLock(f"{path}.lock")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> AnswerLog:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path}: another process writes to this log; wait for it, or name another output"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._read()
            self._file = self.path.open("ab")
        except OSError as error:
            self._lock.release()
            raise self._unwritable(error) from None
        except UserError:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        self._lock.release()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer to a request, if it was ever given."""
        return self._answers.get(key)

    def charged(self) -> tuple[int, int]:
        """The input and output tokens of all answers, and of what else may be charged for."""
        items: list[Answer | Lost] = [*self._answers.values(), *self._lost]
        return sum(item.input_tokens for item in items), sum(item.output_tokens for item in items)

    def add(self, item: Answer | Lost) -> None:
        """Keeps an answer or a loss; it is on disk when this returns."""
        assert self._file is not None
        row = {**asdict(item), **({"lost": True} if isinstance(item, Lost) else {})}
        line = json.dumps(row, ensure_ascii=True) + "\n"  # ASCII: half a character cannot be torn
        try:
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None
        self._note(item)

    def _note(self, item: Answer | Lost) -> None:
        if isinstance(item, Lost):
            self._lost.append(item)
        else:
            self._answers[item.key] = item

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                item = Lost(**row) if row.pop("lost", False) else Answer(**row)
            except (ValueError, TypeError, AttributeError):
                raise UserError(
                    f"{self.path}:{number}: not an answer of this program; delete the line, or name "
                    "another output"
                ) from None
            self._note(item)
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: cannot be written ({error.strerror or error}); check the folder")
