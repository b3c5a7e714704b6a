"""The kernels hold strips and tiles, never queries × documents: peak memory of a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import retrofit_kernels

MEASURE = """
import re, sys, torch
from pathlib import Path
torch.set_num_threads(1)  # waiting for each other costs more than it gains on a busy machine
sys.path.insert(0, sys.argv[1])
from retrofit_kernels import *
def resident(field):  # ru_maxrss begins at the parent's peak, and would hide this process' own
    return int(re.search(field + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024  # MiB
queries, documents = (torch.rand(rows, 8, requires_grad=True) for rows in (1024, 131072))
few = queries[:192].detach().requires_grad_()
torch.mm(queries, documents[:64].T).sum().backward()
before = resident("VmHWM")
BODY
print(resident("VmHWM") - before)
"""
BODIES = {
    # The matrix of logits would be 512 MiB.
    "info_nce": "info_nce(queries, documents, scale=1.0, "
    "options=ContrastiveOptions(strip_bytes=16 << 20)).loss.backward()",
    # 25 million masked pairs would be 192 MiB per index vector, and finding them takes several.
    "all ids equal": "info_nce(few, documents, scale=1.0, options=ContrastiveOptions(strip_bytes=16 << 20,"
    "query_ids=torch.zeros(192).long(), document_ids=torch.zeros(131072).long())).loss.backward()",
    "nearest_neighbours": "nearest_neighbours(queries, documents, 10, "
    "options=NeighbourOptions(strip_bytes=16 << 20))",
}


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")


def megabytes(body):
    """Peak memory of the lines of `body` beyond what was there before, in 10^6 bytes."""
    root = str(Path(retrofit_kernels.__file__).parents[1])
    command = [sys.executable, "-c", MEASURE.replace("BODY", body), root]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 2**20 / 1e6


@pytest.mark.parametrize("name", BODIES)
def test_peak_memory(name):
    assert megabytes(BODIES[name]) < 100


def test_what_is_measured_can_be_too_much():
    assert megabytes("torch.mm(few, documents.T).sum()") > 96


@pytest.mark.slow
def test_peak_memory_where_the_logits_would_need_64_gigabytes():
    """131,072 queries and documents at default options: a strip, and the gradients of both.

    The memory grows with the queries by their gradients alone; so 1024 of them are measured, and the
    gradients of the others, whose products would take minutes, are added.
    """
    body = """
documents = torch.randn(131072, 384, requires_grad=True)
queries = torch.randn(1024, 384, requires_grad=True)
info_nce(queries[:64], documents[:128], scale=1.0).loss.backward()  # code that is loaded at the first call
documents.grad = queries.grad = None
before = resident("VmHWM")
info_nce(queries, documents, scale=1.0).loss.backward()
"""
    others = (131072 - 1024) * 384 * 4 / 1e6
    assert megabytes(body) + others <= 600
