"""What a worker process measures of the losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.loss_peers import BY_NAME, Result, Run
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import Call, clock, peak_bytes, summary, take_turns
from benchmarks.kernels.worker import Job, one_line

SCALE = 50.0
"""Temperature 0.02."""
POSITIVE_COSINES = {"hard": 0.2, "nearly converged": 0.5}
"""At 384 dimensions and 4096 documents the losses are about 2 and 1e-6."""
INPUT_SETS = 3
SMALL = Shape(64, 128, 0)
MATMUL_SIZE = {"cpu": 3072, "cuda": 8192}


def make_inputs(shape: Shape, dtype: str, device: str, seed: int, cosine: float) -> tuple[Tensor, Tensor]:
    """Unit vectors; the cosine of query i and document i is `cosine` on average."""
    generator = torch.Generator(device).manual_seed(seed)
    size = {"generator": generator, "device": device}
    documents = F.normalize(torch.randn(shape.columns, shape.dimension, **size), dim=1)
    noise = F.normalize(torch.randn(shape.rows, shape.dimension, **size), dim=1)
    queries = F.normalize(cosine * documents[: shape.rows] + (1 - cosine**2) ** 0.5 * noise, dim=1)
    kind = getattr(torch, dtype)
    return queries.to(kind), documents.to(kind)


def matmul_rate(job: Job) -> float:
    """FLOP/s of a large square product: the measure of everything else."""
    size, device = MATMUL_SIZE[job["device"]], job["device"]
    kind = getattr(torch, job["dtype"])
    factors = [torch.randn(size, size, device=device).to(kind) for _ in range(4)]
    target = torch.empty_like(factors[0])
    pairs = [(0, 1), (2, 3), (1, 2), (3, 0), (0, 2), (1, 3)]
    times = [clock(lambda i=i, j=j: torch.mm(factors[i], factors[j], out=target), device) for i, j in pairs]
    return 2 * size**3 / min(times)


def times(job: Job) -> dict[str, Any]:
    """Times of all peers on one shape, forward and with gradients, and why some of them failed."""
    shape, device = Shape(*job["shape"]), job["device"]
    inputs = [
        make_inputs(shape, job["dtype"], device, seed, POSITIVE_COSINES["hard"]) for seed in range(INPUT_SETS)
    ]
    found: dict[str, Any] = {}
    for name_of_pass in job["passes"]:
        gradients = name_of_pass == "forward_backward"
        calls, failed = {}, {}
        for name in job["peers"]:
            try:
                calls[name] = _rotating(prepare(name, inputs[0], gradients), inputs, gradients)
                if device == "cuda":
                    calls[name](0)  # out of memory is an error that can be caught there
            except Exception as error:
                calls.pop(name, None)
                failed[name] = one_line(error)
        measured = take_turns(calls, device, job["rounds"], job["seconds"])
        spent = {name: summary(seconds) for name, seconds in measured.items()}
        found[name_of_pass] = {"times": spent, "failed": failed}
    return found


def _rotating(run: Run, inputs: list[tuple[Tensor, Tensor]], gradients: bool) -> Call:
    return lambda number: run(*inputs[number % len(inputs)], SCALE, gradients)


def prepare(name: str, inputs: tuple[Tensor, Tensor], gradients: bool) -> Run:
    """A peer that has been called once: on the shape itself if that compiles it, else on a small part."""
    queries, documents = inputs
    run = BY_NAME[name].load()
    if not BY_NAME[name].compiled:
        rows = min(SMALL.rows, len(queries))
        queries, documents = queries[:rows], documents[: len(documents) // len(queries) * rows]
    run(queries, documents, SCALE, gradients)
    return run


def memory(job: Job) -> int:
    """Bytes that one peer takes beside its inputs, its gradients included."""
    inputs = make_inputs(Shape(*job["shape"]), job["dtype"], job["device"], 0, POSITIVE_COSINES["hard"])
    run = prepare(job["peer"], inputs, job["gradients"])
    return peak_bytes(lambda: run(*inputs, SCALE, job["gradients"]), job["device"])


def errors(job: Job) -> dict[str, Any]:
    """Relative errors of loss and gradients against fp64 on the same inputs."""
    runs, failed = {}, {}
    for name in job["peers"]:
        try:
            runs[name] = BY_NAME[name].load()
        except Exception as error:
            failed[name] = one_line(error)
    return {data: _errors(job, cosine, runs, failed) for data, cosine in POSITIVE_COSINES.items()}


def _errors(job: Job, cosine: float, runs: dict[str, Run], failed: dict[str, str]) -> dict[str, Any]:
    from retrofit_kernels.reference import reference_info_nce

    inputs = make_inputs(Shape(*job["shape"]), job["dtype"], job["device"], 7, cosine)
    queries, documents = (x.double().requires_grad_() for x in inputs)
    loss = reference_info_nce(queries, documents, scale=SCALE)
    loss.backward()
    exact = Result(loss.detach(), queries.grad, documents.grad)
    found: dict[str, Any] = dict(failed)
    for name, run in runs.items():
        try:
            result = run(*inputs, SCALE, True)
            expected = _tangent(exact, inputs) if BY_NAME[name].normalises else exact
            found[name] = {
                part: _distance(getattr(result, part), getattr(expected, part)) for part in Result._fields
            }
        except Exception as error:
            found[name] = one_line(error)
    return {"loss": float(exact.loss), "peers": found}


def _tangent(result: Result, inputs: tuple[Tensor, Tensor]) -> Result:
    """The gradients that are left where a function makes unit vectors of its inputs first."""
    pairs = zip((result.queries, result.documents), (x.double() for x in inputs), strict=True)
    return Result(result.loss, *(made - (made * x).sum(1, keepdim=True) * x for made, x in pairs))


def _distance(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())
