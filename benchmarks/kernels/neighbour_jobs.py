"""What a worker process measures of the searches."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.kernels.neighbour_data import Problem, exact_rows, make_problem
from benchmarks.kernels.neighbour_peers import BY_NAME, Run
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.timing import Call, peak_bytes, summary, take_turns
from benchmarks.kernels.worker import Job, one_line

INPUT_SETS = 2
SMALL = Shape(64, 2000, 0)


def _problem(job: Job, seed: int) -> Problem:
    return make_problem(Shape(*job["shape"]), job["k"], job["dtype"], job["device"], seed)


def _load(name: str, job: Job) -> Run:
    """A peer that has searched a small corpus once."""
    run = BY_NAME[name].load()
    small = Shape(SMALL.rows, max(SMALL.columns, 4 * job["k"]), job["shape"][2])
    run(make_problem(small, job["k"], job["dtype"], job["device"], 99))
    return run


def times(job: Job) -> dict[str, Any]:
    """Times of all peers on one shape, and why some of them failed."""
    problems = [_problem(job, seed) for seed in range(INPUT_SETS)]
    calls: dict[str, Call] = {}
    failed = {}
    for name in job["peers"]:
        try:
            calls[name] = _rotating(_load(name, job), problems)
        except Exception as error:
            failed[name] = one_line(error)
    measured = take_turns(calls, job["device"], job["rounds"], job["seconds"])
    return {"times": {name: summary(spent) for name, spent in measured.items()}, "failed": failed}


def _rotating(run: Run, problems: list[Problem]) -> Call:
    return lambda number: run(problems[number % len(problems)])


def memory(job: Job) -> int:
    """Bytes that one peer takes beside queries and corpus."""
    problem = _problem(job, 0)
    run = _load(job["peer"], job)
    return peak_bytes(lambda: run(problem), job["device"])


def quality(job: Job) -> dict[str, Any]:
    """What each peer finds of the exact result of some queries in the whole corpus.

    `found` is the share of the exact rows that are among the peer's, `same_order` the share of the ranks with
    the exact row, `worst_gap` how far the score at a rank is below the exact one at most (where the peer
    found anything), `forbidden` how many rows were found that must not be.
    """
    problem = _problem(job, 0)
    wanted = torch.linspace(0, len(problem.queries) - 1, job["checked"], device=job["device"]).long()
    part = problem.rows(wanted)
    scores, rows = exact_rows(part)
    found: dict[str, Any] = {"capped": _capped(part), "peers": {}}
    for name in job["peers"]:
        try:
            found["peers"][name] = _compare(part, BY_NAME[name].load()(part), scores, rows)
        except Exception as error:
            found["peers"][name] = one_line(error)
    return found


def _capped(problem: Problem) -> float:
    """Share of a plain search's best k that the ceiling or the answers leave out."""
    best = (problem.queries.float() @ problem.corpus.float().T).topk(problem.k, dim=1)
    lost = (best.indices.unsqueeze(2) == problem.answers.unsqueeze(1)).any(2)
    return float((lost | (best.values >= problem.ceiling.unsqueeze(1))).float().mean())


def _compare(
    problem: Problem, found: torch.Tensor, scores: torch.Tensor, rows: torch.Tensor
) -> dict[str, float]:
    there, real = rows >= 0, found >= 0
    vectors = problem.corpus[found.clamp(min=0)].double()
    reached = (vectors @ problem.queries.double().unsqueeze(2)).squeeze(2)
    common = (found.unsqueeze(2) == rows.unsqueeze(1)) & real.unsqueeze(2)
    forbidden = (found.unsqueeze(2) == problem.answers.unsqueeze(1)).any(2)
    forbidden |= reached >= problem.ceiling.double().unsqueeze(1) + 1e-6
    return {
        "found": float(common.any(1)[there].double().mean()),
        "same_order": float((found == rows)[there].double().mean()),
        "worst_gap": float((scores - reached)[there & real].max()) if bool((there & real).any()) else 0.0,
        "forbidden": int((forbidden & real).sum()),
    }
