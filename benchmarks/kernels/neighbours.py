"""Times, memory and correctness of the nearest-neighbour search, ours against the others."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from retrofit_kernels.cost import neighbours_cost

from benchmarks.kernels.goals import Entry, Predict, predictions
from benchmarks.kernels.machine import available_bytes, choose_device, describe
from benchmarks.kernels.neighbour_goals import NAMED, goals
from benchmarks.kernels.neighbour_peers import BY_NAME
from benchmarks.kernels.shapes import Shape, parse_shape
from benchmarks.kernels.worker import JobFailed, run_job

LAYOUT = 1


@dataclass(frozen=True)
class Plan:
    """What is measured where nothing else is asked for.

    Attributes:
        shapes: queries, documents and dimension.
        k: documents per query.
        dtype: of the embeddings.
        rounds: counted rounds at least.
        seconds: that the rounds of a shape take at least.
        checked: queries that are compared with fp64.
    """

    shapes: tuple[Shape, ...]
    k: int
    dtype: str
    rounds: int
    seconds: float
    checked: int


PREDICTED = (NAMED, Shape(1000000, 1000000, 768))
PLANS = {
    "cpu": Plan((Shape(2000, 20000, 384), NAMED), 100, "float32", 2, 2.0, 256),
    "cuda": Plan((NAMED, Shape(100000, 1000000, 768)), 100, "bfloat16", 5, 2.0, 256),
    "quick": Plan((Shape(200, 3000, 32),), 10, "float32", 2, 0.05, 50),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that the search alone has."""
    parser.add_argument("--shapes", type=parse_shape, nargs="*", help="QUERIESxDOCUMENTSxDIMENSION …")
    parser.add_argument("--k", type=int, help="documents per query")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--peers", nargs="*", choices=list(BY_NAME), help="default: all that run here")


def run(arguments: argparse.Namespace) -> Entry:
    """Measures everything and returns the results, in the layout that kernels/README.md describes."""
    device = choose_device(arguments.device)
    default = PLANS["quick" if arguments.quick else device]
    given = {
        name: value if not isinstance(value, list) else tuple(value)
        for name in ("shapes", "k", "dtype", "rounds")
        if (value := getattr(arguments, name)) is not None
    }
    plan = Plan(**{**vars(default), **given})
    names = tuple(arguments.peers or BY_NAME)
    common = {"device": device, "threads": arguments.threads, "dtype": plan.dtype}
    rate = run_job("matmul", **common)
    print(f"matmul: {rate / 1e12:.3f} TFLOP/s", flush=True)
    timings: list[Entry] = []
    memory: list[Entry] = []
    quality: list[Entry] = []
    for shape in plan.shapes:
        skipped = _reasons(names, shape, plan, device, rate, arguments.longest)
        able = [name for name in names if name not in skipped]
        job = {**common, "shape": list(vars(shape).values()), "k": plan.k}
        timings += _times(job, plan, shape, names, able, skipped, rate)
        memory += [_memory(job, shape, name, skipped) for name in names]
        quality.append(_quality(job, plan, shape, able))
    return {
        "layout": LAYOUT,
        "kind": "neighbours",
        "machine": describe(device, arguments.threads),
        "settings": {
            "dtype": plan.dtype,
            "k": plan.k,
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "shapes": [asdict(shape) for shape in plan.shapes],
        },
        "matmul_tflops": rate / 1e12,
        "peers": {
            name: {
                "title": BY_NAME[name].title,
                "status": BY_NAME[name].unavailable(device, plan.dtype) or "run",
            }
            for name in names
        },
        "timings": timings,
        "memory": memory,
        "quality": quality,
        "must_reach": goals(plan.shapes, timings, memory, quality),
        "predictions": predictions(PREDICTED, _predictor(plan.k), timings, device),
    }


def _predictor(k: int) -> Predict:
    return lambda shape, dtype, card: neighbours_cost(
        shape.rows, shape.columns, shape.dimension, dtype, card, k=k
    )


def _reasons(
    names: tuple[str, ...], shape: Shape, plan: Plan, device: str, rate: float, longest: float
) -> dict[str, str]:
    """Why peers do not run on a shape."""
    size = 4 if plan.dtype == "float32" else 2
    products = 2 * shape.products / rate
    available = available_bytes(device)
    found = {}
    for name in names:
        reason = BY_NAME[name].unavailable(device, plan.dtype)
        if reason is None and products > longest:
            reason = f"skipped: the products alone would take {products:.0f} s"
        reason = reason or BY_NAME[name].too_large(shape, size, available)
        if reason is not None:
            found[name] = reason
    return found


def _times(
    job: Entry,
    plan: Plan,
    shape: Shape,
    names: tuple[str, ...],
    able: list[str],
    skipped: dict[str, str],
    rate: float,
) -> list[Entry]:
    try:
        found = run_job("neighbour_times", **job, peers=able, rounds=plan.rounds, seconds=plan.seconds)
    except JobFailed as error:
        found = {"times": {}, "failed": dict.fromkeys(able, f"failed: {error}")}
    reasons = {**skipped, **found["failed"]}
    entries = []
    for name in names:
        entry: Entry = {"shape": asdict(shape), "peer": name, "skipped": reasons.get(name)}
        if name in found["times"]:
            spent = found["times"][name]
            entry |= spent | {"matmul_fraction": 2 * shape.products / spent["median"] / rate}
            print(f"{shape} {name}: {spent['median']:.4g} s", flush=True)
        entries.append(entry)
    return entries


def _memory(job: Entry, shape: Shape, name: str, skipped: dict[str, str]) -> Entry:
    entry: Entry = {"shape": asdict(shape), "peer": name, "skipped": skipped.get(name)}
    if name not in skipped:
        try:
            entry["bytes"] = run_job("neighbour_memory", **job, peer=name)
            print(f"{shape} memory of {name}: {entry['bytes'] / 1e6:.0f} MB", flush=True)
        except JobFailed as error:
            entry["skipped"] = f"failed: {error}"
    return entry


def _quality(job: Entry, plan: Plan, shape: Shape, able: list[str]) -> Entry:
    entry: Entry = {"shape": asdict(shape), "checked": plan.checked, "capped": None}
    try:
        return entry | run_job("neighbour_quality", **job, peers=able, checked=plan.checked)
    except JobFailed as error:
        return entry | {"peers": dict.fromkeys(able, f"failed: {error}")}
