"""Asks a generator, keeps every answer before it is used, and asks again where one cannot be used."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Generic, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lit_retrofit.synthesis.answers import Answer, AnswerLog, Failure, Generator, Lost, Request, Result
from lit_retrofit.synthesis.schema import BadAnswer
from lit_retrofit.synthesis.spending import LimitReached

Parsed = TypeVar("Parsed")


@dataclass
class Tally:
    """What came of asking.

    Attributes:
        asked: requests sent in this run.
        kept: answers taken from the log of an earlier run.
        bad: unusable answers by reason; asking again may have helped.
        failed: requests without an answer by reason.
        beyond_limit: requests not sent, because they could have cost more than was left.
    """

    asked: int = 0
    kept: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    beyond_limit: int = 0


@dataclass(frozen=True, slots=True)
class Usable(Generic[Parsed]):
    """A parsed answer and the key of the request that gave it."""

    value: Parsed
    key: str


class Signals:
    """Notes SIGINT and SIGTERM, so that what is under way is ended. A second one ends the process at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def stopped(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    @contextmanager
    def noted(self) -> Iterator[Signals]:
        """Takes the signals over within the block; Python allows it in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)


class Stopped(Exception):
    """A signal came; the answers so far are in the log."""


class Asker:
    """Everything that asking needs.

    Args:
        generator: writes answers.
        log: keeps them.
        signals: stop it.
        attempts: how often one request is asked until its answer can be used; each time with another seed.
    """

    def __init__(self, generator: Generator, log: AnswerLog, signals: Signals, attempts: int) -> None:
        self._generator, self._log, self._signals, self._attempts = generator, log, signals, attempts
        self.tally = Tally()

    def ask(
        self, requests: Sequence[Request], parse: Callable[[Answer], Parsed], description: str
    ) -> list[Usable[Parsed] | None]:
        """Asks all requests.

        Args:
            requests: in any order.
            parse: reads an answer, or raises BadAnswer.
            description: beside the progress bar.

        Returns:
            One result per request, None where no attempt gave a usable answer.

        Raises:
            Stopped: a signal came.
            Exception: the generator's own faults; what was answered before is in the log.
        """
        results: list[Usable[Parsed] | None] = [None] * len(requests)
        open_rows = list(range(len(requests)))
        for attempt in range(self._attempts):
            asked = [replace(requests[row], seed=requests[row].seed + attempt) for row in open_rows]
            self._answer(asked, description if attempt == 0 else f"{description}, again")
            left = []
            for row, request in zip(open_rows, asked, strict=True):
                answer = self._log.get(request.key)
                if answer is None:
                    continue  # failed, and counted as such: asked again by the next run
                try:
                    results[row] = Usable(parse(answer), request.key)
                except BadAnswer as bad:
                    self.tally.bad[str(bad)] += 1
                    left.append(row)
            open_rows = left
            if not open_rows:
                break
        return results

    def _answer(self, requests: Sequence[Request], description: str) -> None:
        """Brings the answers of all requests into the log, where the generator gives any."""
        missing = {request.key: request for request in requests if self._log.get(request.key) is None}
        self.tally.kept += len(requests) - len(missing)
        if not missing:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task(description, total=len(requests), completed=len(requests) - len(missing))
            came = 0
            try:
                for result in self._generator.generate(list(missing.values()), self._signals.stopped):
                    self._take(result)
                    if not isinstance(result, Lost):
                        came += 1
                        progress.advance(bar)
            except LimitReached:
                self.tally.beyond_limit += len(missing) - came
        if self._signals.stopped():
            raise Stopped

    def _take(self, result: Result) -> None:
        if isinstance(result, Failure):
            self.tally.failed[result.reason] += 1
            return
        self._log.add(result)
        if isinstance(result, Answer):
            self.tally.asked += 1
