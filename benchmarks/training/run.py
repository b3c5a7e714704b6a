"""Steps that take turns, and gradients held against those of one graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.kernels.timing import summary
from benchmarks.training.peers import PEERS, Settings
from benchmarks.training.worker import Worker
from lit_retrofit.data.records import Record

WARM_UP = 512
"""Queries, at most, of the step before the one whose memory is measured."""


def measure(settings: Settings, peers: list[str], batches: list[list[Record]]) -> dict[str, Any]:
    """Times, losses and peak memory of one size of batch, by peer."""
    workers = {peer: Worker(peer, settings) for peer in peers}
    size = len(batches[0])
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    parts: list[dict[str, float]] = []
    for batch in batches[1:]:
        for peer, worker in workers.items():
            # Not counted: a process gets its memory in its first step (ours at 512 pairs: 22 s of system
            # time), and a virtual machine may have taken it back in the minutes in which others had their
            # turn. In training, step follows step.
            worker.ask("run", batches[0])
            answer = worker.ask("run", batch)
            found[peer].append(answer)
            print(f"{size} pairs, {peer}: {answer['seconds']:.2f} s, loss {answer['loss']:.4f}", flush=True)
            if peer == "ours":
                parts.append(worker.ask("parts", batch) | {"step": answer["seconds"]})
    for worker in workers.values():
        worker.close()
    return {"peers": {peer: _summary(answers, size) for peer, answers in found.items()}, "parts": parts}


def _summary(answers: list[dict[str, float]], size: int) -> dict[str, Any]:
    times = summary([answer["seconds"] for answer in answers])
    shares = {name: answers[-1][name] for name in ("padding", "recomputed", "tokens") if name in answers[-1]}
    return {
        **times,
        "pairs_per_second": size / times["median"],
        "losses": [answer["loss"] for answer in answers],
        "peak_bytes": max(answer["peak"] for answer in answers),
        **shares,
    }


def peak_memory(settings: Settings, batches: list[list[Record]]) -> dict[str, dict[str, float]]:
    """Peak memory of a step of ours by size of batch, each in a process of its own that has done one before.

    Args:
        settings: shared by all; `graph_memory` is the budget that is held.
        batches: one of each size.
    """
    found = {}
    for batch in batches:
        worker = Worker("ours", settings)
        worker.ask("run", batch[:WARM_UP])
        answer = worker.ask("run", batch)
        worker.close()
        print(f"{len(batch)} pairs, memory of ours: {answer['peak'] / 1e9:.2f} GB", flush=True)
        found[str(len(batch))] = {name: answer[name] for name in ("peak", "recomputed", "tokens")}
    return found


def compare_gradients(settings: Settings, batch: list[Record]) -> dict[str, Any]:
    """Relative distance of each peer's gradients from those of one graph over the whole batch."""
    answers = {}
    for peer in PEERS:
        worker = Worker(peer, settings)
        answers[peer] = worker.ask("gradients", batch)
        worker.close()
    loss, exact = answers.pop("plain")
    found: dict[str, Any] = {"queries": len(batch), "loss": loss, "peers": {}}
    norm = sum(float(np.square(g).sum()) for g in exact.values()) ** 0.5
    for peer, (own_loss, own) in answers.items():
        if own.keys() != exact.keys():
            raise RuntimeError(f"{peer} trains other weights: {sorted(own.keys() ^ exact.keys())[:3]}")
        square = sum(float(np.square(own[name] - g).sum()) for name, g in exact.items())
        found["peers"][peer] = {"loss": own_loss, "relative_distance": square**0.5 / norm}
    return found
