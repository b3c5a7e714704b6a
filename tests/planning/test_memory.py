"""Which micro-batches a step has, what it keeps of them, and what fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from retrofit_kernels.cost import CARDS, loss_cost

from lit_retrofit.data.batching import make_micro_batches
from lit_retrofit.planning.devices import find_card
from lit_retrofit.planning.memory import Run, largest_batch, step_memory
from lit_retrofit.planning.probe import GraphCost, Line
from lit_retrofit.planning.sizes import Flop, Parameters, Split
from lit_retrofit.planning.step_time import step_time
from lit_retrofit.planning.workload import Texts, micro_batches

GRAPH = GraphCost(Line(1000.0, 100_000.0), Line(500.0, 20_000.0))
CARD = find_card("rtx4090", "bf16-mixed")
RUN = Run(
    device=CARD, parameters=Parameters(100_000_000, 1_000_000, 90_000_000, 0.01), table_trained=False,
    dimension=384, made_weights=0, graph=GRAPH, frozen_token_bytes=0, graph_memory=None, token_budget=8192,
    texts=Texts(32, 128, 2, "given"),
)  # fmt: skip


def test_micro_batches_are_cut_as_for_training() -> None:
    texts, budget = Texts(10, 100, 3, ""), 1024
    made = make_micro_batches([[1] * 10] * 25 + [[1] * 100] * 75, 0, budget)
    planned = [g.tokens for g in micro_batches(texts, 25, budget) for _ in range(g.count)]
    assert planned == [part.input_ids.numel() for part in made]


def test_the_parts_by_hand() -> None:
    # 8 queries: 16 documents in one micro-batch, the queries in another; all graphs are kept
    memory, kept = step_memory(RUN, 8)
    assert (memory.weights, memory.gradients, memory.optimizer) == (400_000_000, 4_000_000, 8_000_000)
    assert memory.kept_graphs == 2 * 1000 + 100_000 * (16 * 128 + 8 * 32)
    assert memory.embeddings == 2 * 24 * 384 * 4
    assert memory.work == 500 + 20_000 * 16 * 128
    assert memory.loss == 8 * 16 * 4 + 3 * 24 * 384 * 4
    assert memory.total == 412_000_000 + memory.kept_graphs + memory.embeddings + memory.work
    assert not kept.recomputed and memory.fits


def test_weights_made_for_a_step_count() -> None:
    memory = step_memory(replace(RUN, made_weights=85_000_000), 8)[0]
    assert memory.made_weights == 85_000_000
    assert memory.total == step_memory(RUN, 8)[0].total + 85_000_000


def test_devices_share_the_queries_by_hand() -> None:
    """Four devices of two queries each: four documents and two queries to embed, sixteen to compare with."""
    run = replace(RUN, devices=4)
    memory, kept = step_memory(run, 8)
    assert memory.kept_graphs == 2 * 1000 + 100_000 * (4 * 128 + 2 * 32)
    assert memory.embeddings == 2 * (2 + 4) * 384 * 4
    assert memory.loss == 2 * 16 * 4 + 3 * (2 + 16) * 384 * 4
    assert memory.work == 500 + 20_000 * 4 * 128
    assert (memory.weights, memory.gradients, memory.optimizer) == (400_000_000, 4_000_000, 8_000_000)
    time = step_time(run, 8, kept, lambda length: Flop(0, 2e6, 3e6, 0))
    assert time.forward == pytest.approx((4 * 128 + 2 * 32) * 2e6 / (0.4 * 165.2e12))
    assert time.backward == pytest.approx((4 * 128 + 2 * 32) * 3e6 / (0.4 * 165.2e12))
    assert time.loss == loss_cost(2, 16, 384, "float32", CARDS["rtx4090"]).seconds
    assert time.tokens == 8 * (32 + 2 * 128)
    assert time.examples_per_hour == pytest.approx(8 * 3600 / time.total)
    assert time.update == step_time(RUN, 8, kept, lambda length: Flop(0, 2e6, 3e6, 0)).update
    # 9 queries: one device has three
    assert step_memory(run, 9)[0].embeddings == 2 * (3 + 6) * 384 * 4


def test_split_weights_by_hand() -> None:
    """Beside the whole weights and gradients, a quarter of the weights and of the two moments."""
    full = replace(RUN, parameters=Parameters(100_000_000, 100_000_000, 90_000_000, 1.0), devices=4)
    whole, split = (
        step_memory(run, 8)[0] for run in (full, replace(full, split=Split(100_000_000, 100_000_000)))
    )
    assert (whole.weights, whole.gradients, whole.optimizer) == (400_000_000, 400_000_000, 800_000_000)
    assert (split.weights, split.gradients, split.optimizer) == (500_000_000, 400_000_000, 200_000_000)
    assert whole.total - split.total == 500_000_000
    # with adapters their moments stay whole, and the base is there one and a quarter times
    adapters = step_memory(replace(RUN, devices=4, split=Split(99_000_000)), 8)[0]
    assert (adapters.weights, adapters.gradients, adapters.optimizer) == (499_000_000, 4_000_000, 8_000_000)


def test_processes_share_a_cpu_but_not_cards() -> None:
    cpu = replace(CARD, name="cpu", memory=10_000, program=1_000)
    shared = cpu.shared(3)
    assert (shared.memory, shared.program) == (1_000 + 3_000, 1_000)
    for rate in ("forward", "backward", "product", "bandwidth"):
        assert getattr(shared, rate) == pytest.approx(getattr(cpu, rate) / 3)
    assert CARD.shared(3) == CARD


@pytest.mark.parametrize("kept_for_a_step", [True, False])
def test_kept_weights_are_made_once_a_step(kept_for_a_step: bool) -> None:
    run = replace(RUN, made_weights=int(kept_for_a_step), graph_memory=1.0)
    kept = step_memory(run, 128)[1]  # five micro-batches, four of them embedded twice
    without, merging = (step_time(run, 128, kept, lambda length, m=m: Flop(0, 2e6, 3e6, m)) for m in (0, 1e9))
    made = (merging.forward - without.forward) * CARD.forward
    assert made == pytest.approx((1 if kept_for_a_step else 5) * 1e9)
    assert (
        (merging.recomputed == without.recomputed)
        == (merging.backward == without.backward)
        == kept_for_a_step
    )


def test_what_is_not_kept_is_embedded_twice() -> None:
    run = replace(RUN, graph_memory=1.0)
    memory, kept = step_memory(run, 128)  # four micro-batches of 64 documents, 0.82 GB each; one of queries
    assert memory.kept_graphs == 1000 + 100_000 * 4096  # the last; the one before would not fit with it
    assert [group.count for group in kept.recomputed] == [4]
    assert memory.work == 1500 + 120_000 * 8192 - memory.kept_graphs
    assert step_memory(replace(RUN, graph_memory=1.3), 128)[1].recomputed[0].count == 3
    flop = Flop(0, 2e6, 3e6, 0)
    time = step_time(run, 128, kept, lambda length: flop)
    assert time.tokens == 128 * (32 + 2 * 128)
    assert time.recomputed_share == 4 * 8192 / time.tokens
    assert time.recomputed == pytest.approx(time.forward * time.recomputed_share)
    assert time.forward == pytest.approx(time.tokens * 2e6 / (0.4 * 165.2e12))
    assert time.backward == pytest.approx(1.5 * time.forward)
    assert time.total == time.forward + time.recomputed + time.backward + time.loss + time.update
    assert time.examples_per_hour == pytest.approx(128 * 3600 / time.total)


def test_no_graph_is_kept_before_one_that_is_not() -> None:
    # micro-batches of 64 documents, of 4 (0.05 GB), of 130 queries (0.42 GB): the last keeps none
    memory, kept = step_memory(replace(RUN, graph_memory=0.2), 130)
    assert memory.kept_graphs == 0
    assert sum(group.count for group in kept.recomputed) == 6


def test_frozen_blocks_output_is_kept_where_it_takes_half_of_the_budget_at_most() -> None:
    tokens = 8 * (32 + 2 * 128)
    for size, expected in ((1000, 1000 * tokens), (500_000, 0)):
        run = replace(RUN, frozen_token_bytes=size, graph_memory=1.0)
        assert step_memory(run, 8)[0].frozen_outputs == expected


def test_a_trained_table_needs_room_for_one_more_gradient() -> None:
    run = replace(RUN, table_trained=True)
    assert step_memory(run, 8)[0].work == 4 * 90_000_000


@pytest.mark.parametrize("graph_memory", [None, 0.0, 2.0])
def test_more_memory_never_holds_a_smaller_batch(graph_memory: float | None) -> None:
    sizes = []
    for gigabytes in (1, 2, 4, 6, 8, 16, 24, 48):
        run = replace(RUN, device=replace(CARD, memory=gigabytes * 10**9), graph_memory=graph_memory)
        sizes.append(largest_batch(lambda batch, run=run: step_memory(run, batch)[0].fits))
    assert sizes == sorted(sizes)
    assert sizes[0] == 0 < sizes[-1]


def test_the_largest_batch_is_the_last_that_holds() -> None:
    for limit in (0, 1, 2, 3, 1000, 4095, 4096):
        assert largest_batch(lambda batch, limit=limit: batch <= limit) == limit
    assert largest_batch(lambda batch: True) == 1 << 24
