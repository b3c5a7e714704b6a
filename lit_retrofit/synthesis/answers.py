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
        model: its name.
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
    """A request without an answer: nothing was paid, and it is asked again in the next run.

    Attributes:
        key: of the request.
        reason: in a few words, without any secret.
    """

    key: str
    reason: str


class Generator(Protocol):
    """A source of answers."""

    def generate(
        self, requests: Sequence[Request], stopped: Callable[[], bool]
    ) -> Iterator[Answer | Failure]:
        """Answers in any order. Once ``stopped()``, it begins no request and ends those under way."""
        ...


class AnswerLog:
    """An append-only file of answers; each is on disk before it is used.

    A process that is killed leaves at most half a line at the end, which the next one cuts off.

    Args:
        path: the file; made if missing, and never overwritten.

    Raises:
        UserError: another process holds it, or a line in it is no answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Answer] = {}
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

    def values(self) -> list[Answer]:
        """All answers, in the order in which they came."""
        return list(self._answers.values())

    def add(self, answer: Answer) -> None:
        """Keeps an answer; it is on disk when this returns."""
        assert self._file is not None
        line = json.dumps(asdict(answer), ensure_ascii=True) + "\n"  # ASCII: half a character cannot be torn
        try:
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None
        self._answers[answer.key] = answer

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                answer = Answer(**json.loads(line))
            except (ValueError, TypeError):
                raise UserError(
                    f"{self.path}:{number}: not an answer of this program; delete the line, or name "
                    "another output"
                ) from None
            self._answers[answer.key] = answer
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: cannot be written ({error.strerror or error}); check the folder")
