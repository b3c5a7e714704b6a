"""A process for each implementation: they take turns, and each has a peak memory of its own."""

from __future__ import annotations

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.kernels.timing import process_peak, start_peak
from benchmarks.training.peers import PEERS, Settings
from lit_retrofit.data.records import Record


def serve(connection: Connection, peer: str, settings: Settings) -> None:
    """Answers ("run" or "parts" or "gradients", records) until None comes."""
    try:
        torch.set_num_threads(settings.threads)
        step = PEERS[peer][1](settings)
        connection.send(None)
        while (task := connection.recv()) is not None:
            kind, records = task
            connection.send(_do(step, kind, records))
    except Exception:
        connection.send(RuntimeError(f"{peer}: {traceback.format_exc()}"))


def _do(step: Any, kind: str, records: list[Record]) -> Any:
    if kind == "parts":
        return step.parts(records)
    if kind == "gradients":
        loss = step.backward(records)
        found = {name: gradient.numpy() for name, gradient in step.gradients().items()}
        step.optimizer.zero_grad()
        return loss, found
    start_peak()
    seconds = step.run(records)
    return {
        "seconds": seconds,
        "loss": step.losses[-1],
        "peak": process_peak(),
        **getattr(step, "shares", {}),
    }


class Worker:
    """The other end of such a process."""

    def __init__(self, peer: str, settings: Settings) -> None:
        # Forked from a process that imported what all of them need, and computed nothing: imports take longer
        # than a small measurement.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.training.peers"])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, peer, settings), daemon=True)
        self._process.start()
        theirs.close()
        self._answer(peer)
        self._peer = peer

    def ask(self, kind: str, records: list[Record]) -> Any:
        """What the process answers."""
        self._connection.send((kind, records))
        return self._answer(self._peer)

    def _answer(self, peer: str) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            status = self._process.exitcode
            raise SystemExit(f"{peer}: its process ended with status {status}; out of memory?") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._connection.send(None)
        self._process.join()
