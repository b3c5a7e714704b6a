"""Memory of freed tensors goes back to the system, in a process whose heap is not yet anybody else's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lit_retrofit.data.batching import TokenBatch
from lit_retrofit.training.freed_memory import FreedMemory
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.graph_budget import GraphBudget

# Prints the resident megabytes with all blocks, after every second one is freed, and after giving back.
FRAGMENTED = """
import sys, psutil, torch
from lit_retrofit.training.freed_memory import FreedMemory
resident = lambda: print(psutil.Process().memory_info().rss // 10**6)
torch.ones(7 << 20)  # 28 MB, freed: the heap then serves blocks of this size itself
freed = FreedMemory()
freed.give_back()
blocks = [torch.ones(1 << 20) for _ in range(600)]
resident()
del blocks[::2]
resident()
freed.give_back(*map(int, sys.argv[1:]))
resident()
"""


def resident(soon_needed: int, graphs: int = 0) -> list[int]:
    """Megabytes at the three moments."""
    command = [sys.executable, "-c", FRAGMENTED, str(soon_needed), str(graphs)]
    return [int(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library")
def test_the_pages_of_freed_blocks_are_given_back():
    full, fragmented, after = resident(0)
    assert fragmented > full - 200, "the heap gave them back by itself"
    assert after < full - 1100  # 300 blocks of 4 MiB: 1,258 MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library")
def test_what_is_soon_needed_stays():
    for soon_needed in (2 << 30, 1_100_000_000):  # and a quarter of a gigabyte beyond it: more than is free
        _, fragmented, after = resident(soon_needed)
        assert abs(after - fragmented) < 50
    full, _, after = resident(500_000_000)
    assert after < full - 1100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library")
def test_a_quarter_of_the_kept_graphs_may_lie_in_holes():
    _, fragmented, after = resident(0, 6_000_000_000)  # 1.5 GB may stay
    assert abs(after - fragmented) < 50
    full, _, after = resident(0, 4_000_000_000)
    assert after < full - 1100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library")
def test_the_heap_is_looked_at_when_the_process_has_grown(monkeypatch):
    freed = FreedMemory()
    freed.give_back()
    looks = []
    monkeypatch.setattr(freed, "_beyond_tensors", lambda: looks.append(1) or 0)
    size = freed._resident()
    for grown, expected in ((0, 0), (1, 1), (1, 1), (1.5, 1), (2, 2), (0, 2), (2, 2), (3, 3)):
        monkeypatch.setattr(freed, "_resident", lambda grown=grown: size + int(grown * 100_000_000))
        freed.give_back()
        assert len(looks) == expected


def test_nothing_happens_with_another_c_library(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    FreedMemory().give_back()


class Recorder:
    """Notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.graphs: list[int] = []

    def give_back(self, soon_needed: int, graphs: int) -> None:
        """Called by the engine."""
        self.asked.append(soon_needed)
        self.graphs.append(graphs)


GRAPH = (2 * 4 + 2 * 3) * 4  # bytes that the product and exp keep of a micro-batch


# Kept graphs will be taken again by the next step: what they leave behind may stay.
@pytest.mark.parametrize(
    ("gigabytes", "first_step", "second_step"),
    [
        (0.0, [0, 0, 0, GRAPH, GRAPH, GRAPH], [0, 0, 0, GRAPH, GRAPH, GRAPH]),
        (1.0, [GRAPH, GRAPH, GRAPH, GRAPH, 2 * GRAPH, 3 * GRAPH], [2 * GRAPH, GRAPH, GRAPH]),
    ],
)
def test_every_pass_over_a_micro_batch_asks(gigabytes: float, first_step: list[int], second_step: list[int]):
    weight = torch.nn.Parameter(torch.ones(4, 3))
    batches = [
        TokenBatch(torch.ones(2, 5).long(), torch.ones(2, 5).long(), rows)
        for rows in torch.arange(6).split(2)
    ]

    def encode(batch: TokenBatch) -> torch.Tensor:
        return (batch.input_ids.float() @ torch.ones(5, 4) @ weight).exp()

    budget = GraphBudget(gigabytes)
    for expected in (first_step, second_step):
        budget.freed = Recorder()
        cached = CachedEmbeddings(encode, batches, 6, budget, [weight])
        cached.leaf.sum().backward()
        cached.backward()
        assert budget.freed.asked[: len(expected)] == expected
    assert set(budget.freed.graphs) == {3 * GRAPH if gigabytes else 0}  # in the second step from the start
