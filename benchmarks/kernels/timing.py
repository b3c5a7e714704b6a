"""Times of calls that take turns, and peak memory of one call."""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

MAX_ROUNDS = 50
WARM_UP_SECONDS = 5.0
"""A first round shorter than this is not counted. In a longer one, what only the first call pays (memory
that is touched for the first time) is lost in what every call pays."""

Call = Callable[[int], Any]


def clock(call: Callable[[], Any], device: str) -> float:
    """Seconds of one call; on a GPU between two events on its own time line."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def take_turns(calls: dict[str, Call], device: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Times all calls in rounds A, B, C, A, B, C …, so that a slow minute of the machine hits all of them.

    Args:
        calls: each is given the number of the round, to rotate its inputs.
        device: "cpu" or "cuda".
        rounds: number of counted rounds at least.
        seconds: further rounds are added until all of them took this long.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    total, counted, number = 0.0, 0, 0
    while counted < rounds or (total < seconds and counted < MAX_ROUNDS):
        taken = {}
        for name, call in calls.items():
            taken[name] = clock(lambda call=call, number=number: call(number), device)
        if number > 0 or sum(taken.values()) >= WARM_UP_SECONDS:
            for name, spent in taken.items():
                times[name].append(spent)
            total, counted = total + sum(taken.values()), counted + 1
        number += 1
    return times


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Median and spread."""
    return {
        "median": statistics.median(times),
        "lowest": min(times),
        "highest": max(times),
        "seconds": list(times),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def peak_bytes(call: Callable[[], Any], device: str) -> int:
    """Memory that one call takes at its worst, beyond what is held before it.

    On a GPU torch's allocator is asked, which does not know what other libraries allocate by themselves.
    On the CPU this is the process' peak resident memory: call it in a process of its own. On Linux the peak
    is set back first, and read from /proc, because `ru_maxrss` starts at the peak of the process' parent.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = start_peak()
    call()
    return process_peak() - before


def start_peak() -> int:
    """Forgets this process' peak of resident memory, where that is possible; returns what is resident."""
    status = Path("/proc/self/status")
    if not status.exists():
        return _maxrss()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS", status)


def process_peak() -> int:
    """Bytes that were resident at most since `start_peak`."""
    status = Path("/proc/self/status")
    return _status("VmHWM", status) if status.exists() else _maxrss()


def _status(field: str, status: Path) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    if match is None:
        raise RuntimeError(f"{status} has no {field}")
    return 1024 * int(match[1])


def _maxrss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
