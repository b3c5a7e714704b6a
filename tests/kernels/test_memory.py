"""The kernels hold strips and tiles, never queries × documents: peak memory of a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import retrofit_kernels

MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)  # waiting for each other costs more than it gains on a busy machine
sys.path.insert(0, sys.argv[1])
from retrofit_kernels import *
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB
queries, documents = (torch.rand(rows, 8, requires_grad=True) for rows in (1024, 131072))
few = queries[:192].detach().requires_grad_()
torch.mm(queries, documents[:64].T).sum().backward()
before = peak()
BODY
print(peak() - before)
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


@pytest.mark.parametrize("name", BODIES)
def test_peak_memory(name):
    root = str(Path(retrofit_kernels.__file__).parents[1])
    script = MEASURE.replace("BODY", BODIES[name])
    run = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 96  # MiB


@pytest.mark.slow
def test_peak_memory_where_the_logits_would_need_64_gigabytes():
    """131,072 documents by default options: a strip (256 MiB) and gradients (192 MiB) at any batch."""
    body = """
documents = torch.randn(131072, 384, requires_grad=True)
queries = torch.randn(1024, 384, requires_grad=True)
before = peak()
info_nce(queries, documents, scale=1.0).loss.backward()
"""
    root = str(Path(retrofit_kernels.__file__).parents[1])
    script = MEASURE.replace("BODY", body)
    run = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 600e6 / 2**20
