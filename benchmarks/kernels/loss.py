"""Times, memory and errors of InfoNCE, ours against the others."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from retrofit_kernels.cost import Cost, loss_cost

from benchmarks.kernels.goals import Entry, predictions
from benchmarks.kernels.loss_goals import goals
from benchmarks.kernels.loss_jobs import POSITIVE_COSINES
from benchmarks.kernels.loss_peers import BY_NAME
from benchmarks.kernels.loss_plan import PLANS, PREDICTED, QUICK_PEERS, Plan
from benchmarks.kernels.machine import available_bytes, choose_device, describe
from benchmarks.kernels.shapes import Shape, parse_shape
from benchmarks.kernels.worker import JobFailed, run_job

LAYOUT = 1
PASSES = ("forward_backward", "forward")


ERROR_COLUMNS = 32768
"""Largest comparison with fp64: the reference holds several matrices of error_rows times this."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that the loss alone has."""
    parser.add_argument("--shapes", type=parse_shape, nargs="*", help="timed with gradients")
    parser.add_argument("--sizes", type=int, nargs="*", help="numbers of queries of the sweep")
    parser.add_argument("--dimension", type=int, help="of the sweep")
    parser.add_argument("--documents-per-query", type=int, default=1, help="of the sweep")
    parser.add_argument("--memory-shapes", type=parse_shape, nargs="*", help="whose peak memory is measured")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--peers", nargs="*", choices=list(BY_NAME), help="default: all that run here")


@dataclass(frozen=True)
class Bench:
    """One run's settings and what every job of it needs."""

    plan: Plan
    device: str
    threads: int
    peers: tuple[str, ...]
    available: int
    longest: float
    matmul_rate: float

    @property
    def main_peers(self) -> tuple[str, ...]:
        """Those that are timed on the single shapes."""
        return tuple(name for name in self.peers if name not in self.plan.sweep_only)

    def job(self, kind: str, **more: Any) -> Any:
        """Runs a job with the run's settings."""
        common = {"device": self.device, "threads": self.threads, "dtype": self.plan.dtype}
        return run_job(kind, **common, **more)

    def reasons(self, shape: Shape) -> dict[str, str]:
        """Why peers do not run on a shape."""
        found = {}
        size = 4 if self.plan.dtype == "float32" else 2
        products = 6 * shape.products / self.matmul_rate
        for name in self.peers:
            reason = BY_NAME[name].unavailable(self.device, self.plan.dtype)
            if reason is None and products > self.longest:
                reason = f"skipped: the products alone would take {products:.0f} s"
            reason = reason or BY_NAME[name].too_large(shape, size, self.available)
            if reason is not None:
                found[name] = reason
        return found


def run(arguments: argparse.Namespace) -> Entry:
    """Measures everything and returns the results, in the layout that kernels/README.md describes."""
    bench, sweep = _bench(arguments)
    print(f"matmul: {bench.matmul_rate / 1e12:.3f} TFLOP/s", flush=True)
    timings = [
        entry for shape in bench.plan.shapes for entry in _times(bench, shape, PASSES[:1], bench.main_peers)
    ]
    timings += [entry for shape in sweep for entry in _times(bench, shape, PASSES, bench.peers)]
    memory = [
        entry
        for shape in dict.fromkeys((*bench.plan.memory_shapes, *sweep))
        for entry in _memory(bench, shape)
    ]
    errors = [entry for shape in sweep for entry in _errors(bench, shape)]
    return {
        "layout": LAYOUT,
        "kind": "loss",
        "machine": describe(bench.device, bench.threads),
        "settings": {
            "dtype": bench.plan.dtype,
            "rounds": bench.plan.rounds,
            "seconds": bench.plan.seconds,
            "shapes": [asdict(shape) for shape in bench.plan.shapes],
            "sweep": [asdict(shape) for shape in sweep],
        },
        "matmul_tflops": bench.matmul_rate / 1e12,
        "peers": {
            name: {
                "title": BY_NAME[name].title,
                "status": BY_NAME[name].unavailable(bench.device, bench.plan.dtype) or "run",
            }
            for name in bench.peers
        },
        "timings": timings,
        "memory": memory,
        "errors": errors,
        "must_reach": goals(bench.plan.shapes, bench.plan.memory_shapes, timings, memory),
        "predictions": predictions(PREDICTED, _predict, _with_gradients(timings), bench.device),
    }


def _predict(shape: Shape, dtype: str, card: str) -> Cost:
    return loss_cost(shape.rows, shape.columns, shape.dimension, dtype, card)


def _with_gradients(timings: list[Entry]) -> list[Entry]:
    return [entry for entry in timings if entry["pass"] == "forward_backward"]


def _bench(arguments: argparse.Namespace) -> tuple[Bench, list[Shape]]:
    device = choose_device(arguments.device)
    default = PLANS["quick" if arguments.quick else device]
    given = {
        name: value if not isinstance(value, list) else tuple(value)
        for name in ("shapes", "sizes", "dimension", "dtype", "memory_shapes", "rounds")
        if (value := getattr(arguments, name)) is not None
    }
    plan = Plan(**{**vars(default), **given})
    peers = tuple(arguments.peers or (QUICK_PEERS if arguments.quick else BY_NAME))
    rate = run_job("matmul", device=device, threads=arguments.threads, dtype=plan.dtype)
    bench = Bench(plan, device, arguments.threads, peers, available_bytes(device), arguments.longest, rate)
    sweep = [Shape(size, size * arguments.documents_per_query, plan.dimension) for size in plan.sizes]
    return bench, sweep


def _times(bench: Bench, shape: Shape, passes: Iterable[str], peers: Iterable[str]) -> list[Entry]:
    skipped = bench.reasons(shape)
    able = [name for name in peers if name not in skipped]
    found: Any = {}
    if able:
        try:
            found = bench.job(
                "loss_times", shape=list(vars(shape).values()), peers=able, passes=list(passes),
                rounds=bench.plan.rounds, seconds=bench.plan.seconds,
            )  # fmt: skip
        except JobFailed as error:
            skipped |= dict.fromkeys(able, f"failed: {error}")
    entries = []
    for name_of_pass in passes:
        spent, failed = ({}, {}) if not found else found[name_of_pass].values()
        work = (6 if name_of_pass == "forward_backward" else 2) * shape.products
        for name in peers:
            entry: Entry = {"shape": asdict(shape), "pass": name_of_pass, "peer": name}
            if name in spent:
                rate = work / spent[name]["median"] / bench.matmul_rate
                entry |= spent[name] | {"matmul_fraction": rate, "skipped": None}
            else:
                entry["skipped"] = skipped.get(name) or failed[name]
            entries.append(entry)
        _say(shape, name_of_pass, entries)
    return entries


def _say(shape: Shape, name_of_pass: str, entries: list[Entry]) -> None:
    parts = [
        f"{entry['peer']} {entry['median']:.4g} s"
        for entry in entries
        if entry["pass"] == name_of_pass and entry["skipped"] is None
    ]
    print(f"{shape} {name_of_pass}: " + ", ".join(parts), flush=True)


def _memory(bench: Bench, shape: Shape) -> list[Entry]:
    skipped = bench.reasons(shape)
    entries = []
    for name in bench.peers:
        if BY_NAME[name].limit or name not in bench.plan.memory_peers:
            continue
        entry: Entry = {"shape": asdict(shape), "peer": name, "skipped": skipped.get(name)}
        if name not in skipped:
            try:
                entry["bytes"] = bench.job(
                    "loss_memory", shape=list(vars(shape).values()), peer=name, gradients=True
                )
            except JobFailed as error:
                entry["skipped"] = f"failed: {error}"
        entries.append(entry)
        print(f"{shape} memory of {name}: {entry['skipped'] or entry['bytes'] / 1e6}", flush=True)
    return entries


def _errors(bench: Bench, sweep_shape: Shape) -> list[Entry]:
    rows = min(sweep_shape.rows, bench.plan.error_rows)
    columns = min(sweep_shape.columns, ERROR_COLUMNS)
    shape = Shape(rows, columns // rows * rows, sweep_shape.dimension)
    skipped = bench.reasons(shape)
    able = [name for name in bench.peers if name not in skipped and not BY_NAME[name].limit]
    try:
        found = bench.job("loss_errors", shape=list(vars(shape).values()), peers=able)
    except JobFailed as error:
        reasons = dict.fromkeys(able, f"failed: {error}")
        found = {data: {"loss": None, "peers": reasons} for data in POSITIVE_COSINES}
    entries = [{"data": data, "shape": asdict(shape), **values} for data, values in found.items()]
    print(f"{shape} errors: done", flush=True)
    return entries
