"""Measurements in processes of their own: one that dies takes no other along, and peaks are its own.

python -m benchmarks.kernels.worker JOB.json RESULT.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
Job = dict[str, Any]
MEASURABLE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc gives freed memory back at once, so that a warm-up leaves none behind that a measured call reuses."""


class JobFailed(Exception):
    """The process of a measurement ended without a result."""


def run_job(kind: str, **job: Any) -> Any:
    """Runs one job in a fresh process.

    Raises:
        JobFailed: it died; the message says how.
    """
    with tempfile.TemporaryDirectory() as folder:
        task, result = Path(folder) / "job.json", Path(folder) / "result.json"
        task.write_text(json.dumps({"kind": kind, **job}))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.kernels.worker", str(task), str(result)],
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(job["threads"]),
                **(MEASURABLE if kind.endswith("memory") else {}),
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if not result.exists():
            raise JobFailed(_reason(done))
        return json.loads(result.read_text())


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}" + (" (out of memory?)" if done.returncode == -9 else "")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"ended with status {done.returncode}"


def one_line(error: Exception) -> str:
    """An error as it stands in the results."""
    lines = str(error).strip().splitlines() or [""]
    return f"failed: {type(error).__name__}: {lines[0][:160]}"


def jobs() -> dict[str, Callable[[Job], Any]]:
    """What a worker can do."""
    from benchmarks.kernels import loss_jobs, neighbour_jobs

    return {
        "matmul": loss_jobs.matmul_rate,
        "loss_times": loss_jobs.times,
        "loss_memory": loss_jobs.memory,
        "loss_errors": loss_jobs.errors,
        "neighbour_times": neighbour_jobs.times,
        "neighbour_memory": neighbour_jobs.memory,
        "neighbour_quality": neighbour_jobs.quality,
    }


def main() -> None:
    """Reads a job, does it, writes the result."""
    task, result = map(Path, sys.argv[1:])
    job = json.loads(task.read_text())
    torch.set_num_threads(job["threads"])
    result.write_text(json.dumps(jobs()[job["kind"]](job)))


if __name__ == "__main__":
    main()
