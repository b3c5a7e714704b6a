"""The cost model against figures worked out by hand from the data sheets."""

from dataclasses import replace

import pytest
from retrofit_kernels.cost import CARDS, PEAK, Shares, find_card, loss_cost, neighbours_cost
from retrofit_kernels.occupancy import MULTIPROCESSORS, occupancy

SHAPE = (32768, 32768, 768, "bfloat16")
NO_BF16 = replace(CARDS["a100"], bfloat16=None)


@pytest.mark.parametrize(
    ("card", "shares", "milliseconds"),
    [
        # 6 · 32768² · 768 = 4.948e12 operations
        ("h100", Shares(790 / 989.4, 1.0), 6.26),
        ("a100", PEAK, 15.86),
        ("rtx4080", PEAK, 50.75),
        ("rtx4090", PEAK, 29.95),
        ("l4", PEAK, 40.89),
    ],
)
def test_three_products_take_as_long_as_worked_out_by_hand(card, shares, milliseconds):
    cost = loss_cost(*SHAPE, card, shares=shares)
    assert cost.flop == 6 * 32768**2 * 768
    assert cost.limited_by == "arithmetic"
    assert cost.seconds * 1e3 == pytest.approx(milliseconds, abs=0.01)


def test_the_strip_passes_through_memory_three_times():
    cost = loss_cost(*SHAPE, "h100")
    assert cost.strip_bytes == 256 << 20  # 4096 rows of 64 KiB: 8 strips
    strip = 3 * 32768 * 32768 * 2
    queries = 3 * 32768 * 768 * 2
    documents = 8 * 32768 * 768 * (2 + 2 + 4 + 4)
    assert cost.bytes == strip + queries + documents
    assert strip / 3 / 1e9 == pytest.approx(2.1, abs=0.05)


def test_a_strip_that_stays_in_the_cache_is_no_traffic():
    budget = 32 << 20  # 512 rows: 64 strips
    small = loss_cost(*SHAPE, "rtx4090", strip_budget=budget)
    assert small.bytes == 3 * 32768 * 768 * 2 + 64 * 32768 * 768 * 12
    # Without a large cache the same strips pass through memory too.
    assert loss_cost(*SHAPE, "rtx3090", strip_budget=budget).bytes == small.bytes + 3 * 32768**2 * 2


def test_memory_limits_an_l4_at_384_dimensions_but_not_an_h100():
    # L4: 20.4 ms of arithmetic against 21.5 ms for the strip alone at 300 GB/s.
    l4 = loss_cost(32768, 32768, 384, "bfloat16", "l4", shares=PEAK)
    assert l4.limited_by == "memory"
    assert l4.arithmetic_seconds * 1e3 == pytest.approx(20.45, abs=0.01)
    assert l4.seconds > 21.4e-3
    assert loss_cost(32768, 32768, 768, "bfloat16", "l4", shares=PEAK).limited_by == "arithmetic"


def test_evaluation_is_one_product_and_no_strip():
    cost = loss_cost(*SHAPE, "a100", gradients=False, shares=PEAK)
    assert cost.flop == 2 * 32768**2 * 768
    assert cost.bytes == 2 * 32768 * 768 * 2
    assert cost.strip_bytes == 0


def test_fp32_is_multiplied_as_tf32_with_a_strip_twice_as_large():
    cost = loss_cost(4096, 4096, 768, "float32", "a100", shares=PEAK)
    assert cost.arithmetic_seconds == pytest.approx(6 * 4096**2 * 768 / 156e12)
    assert cost.strip_bytes == 4096 * 4096 * 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_older_cards_multiply_in_fp32_whatever_the_embeddings_are(dtype):
    """Loss and search take plain torch there, which converts 16 bits to fp32."""
    cost = loss_cost(4096, 4096, 768, dtype, "t4", shares=PEAK)
    assert cost.arithmetic_seconds == pytest.approx(6 * 4096**2 * 768 / 8.1e12)
    assert cost.strip_bytes == 4096 * 4096 * 4
    search = neighbours_cost(1000, 1000, 768, dtype, "t4", k=1, shares=PEAK)
    assert search.arithmetic_seconds == pytest.approx(2 * 1000**2 * 768 / 8.1e12)
    assert search.bytes == 2 * 1000 * 768 * 4 + 1000 * 12


def test_a_million_queries_in_a_million_documents():
    million = 10**6
    cost = neighbours_cost(million, million, 768, "bfloat16", "h100", k=100, shares=Shares(790 / 989.4, 0.9))
    assert cost.seconds == pytest.approx(1.94, abs=0.01)
    assert cost.limited_by == "arithmetic"
    stored = neighbours_cost(million, million, 768, "bfloat16", "h100", k=100, store_scores=True)
    assert stored.memory_seconds - cost.memory_seconds == pytest.approx(2.65, abs=0.01)
    assert cost.bytes == million * 768 * 2 + 16 * million * 768 * 2 + million * 100 * 12


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "capability", "blocks", "limit"),
    [
        # 121 registers become 128: 32,768 for 8 warps. 96 KiB and the reserved 1 KiB fit twice into 228.
        (121, 98304, 8, (9, 0), 2, "registers"),
        (203, 98304, 8, (9, 0), 1, "registers"),
        (216, 65536, 8, (8, 0), 1, "registers"),
        (65, 0, 4, (8, 0), 7, "registers"),  # 65 registers become 72
        (64, 65536, 4, (8, 9), 1, "shared memory"),  # 65 of 100 KiB
        (32, 41 << 10, 4, (8, 0), 3, "shared memory"),  # four times 41 KiB would be 164, without the reserved
        (32, 0, 4, (12, 0), 12, "warps"),
        (16, 0, 1, (8, 6), 16, "blocks"),
        (64, 101 << 10, 8, (12, 0), 0, "shared memory"),  # one block may ask for 99 KiB
    ],
)
def test_occupancy(registers, shared, warps, capability, blocks, limit):
    found = occupancy(registers, shared, warps, capability)
    assert (found.blocks, found.limited_by) == (blocks, limit)
    assert found.share == blocks * warps / MULTIPROCESSORS[capability].warps


def test_a_cost_tells_how_full_a_multiprocessor_is():
    """On an H100 tiles of 128 × 256 in 8 warps, with three buffers of 48 KiB; on Ada 128 × 128, with two."""
    found = loss_cost(*SHAPE, "h100").occupancy
    assert (found.blocks, found.limited_by, found.share) == (1, "registers", 8 / 64)
    # that leaves room for no second one, however few registers a thread has
    few = loss_cost(*SHAPE, "h100", registers=80, gradients=False).occupancy
    assert (few.blocks, few.limited_by) == (1, "shared memory")
    small = loss_cost(*SHAPE, "rtx4090", registers=120).occupancy
    assert (small.blocks, small.limited_by) == (1, "shared memory")
    assert loss_cost(*SHAPE, "t4").occupancy is None
    assert neighbours_cost(*SHAPE, "h100", k=10).occupancy is None


def test_every_card_is_complete():
    for card in CARDS.values():
        assert card.float32 <= (card.tf32 or card.float16)
        assert card.capability in MULTIPROCESSORS and card.source
        assert card.bfloat16 is None or card.tf32 == pytest.approx(card.bfloat16 / 2, rel=0.01)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_card("h300"), "card must be one of rtx3090"),
        (lambda: loss_cost(1, 1, 1, "bfloat16", NO_BF16), "dtype bfloat16 has no tensor cores on A100"),
        (lambda: loss_cost(0, 1, 1, "float16", "t4"), "rows must be at least 1"),
        (lambda: neighbours_cost(1, 1, 1, "int8", "l4", k=1), "dtype must be one of"),
        (lambda: occupancy(300, 0, 4, (8, 0)), "registers must be from 1 to 255"),
        (lambda: occupancy(32, 0, 4, (6, 1)), "capability must be one of 7.5"),
        (lambda: occupancy(32, 0, 0, (8, 0)), "warps must be at least 1"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
