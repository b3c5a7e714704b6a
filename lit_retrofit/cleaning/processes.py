"""The same work in any number of processes, with results in the order of the items."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from lit_retrofit.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 3  # items handed out per process before the first of their results is taken: bounds memory

_work: Callable[[Any], Any] | None = None


def ordered_map(
    make: Callable[..., Callable[[Item], Result]],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    workers: int,
) -> Iterator[Result]:
    """Works on items as they come, and yields the results in their order.

    Args:
        make: builds what works on an item, once in each process; a function of a module.
        arguments: for `make`; they must be picklable.
        items: taken when there is room for them.
        workers: processes; with 1 the work is done here.

    Raises:
        UserError: a worker was killed, for instance for want of memory.
    """
    if workers <= 1:
        work = make(*arguments)
        yield from map(work, items)
        return
    # Not forked: a fork would copy threads of other libraries in the middle of what they do.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(make, arguments)
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_run, item))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process ended, perhaps for want of memory; the same command goes on from here: give "
            "it fewer workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that leads
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = make(*arguments)


def _end_with_parent() -> None:
    """A leader that was killed outright cannot end its workers."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _run(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def available_processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
