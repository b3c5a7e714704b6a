"""The rules against plain Python on single numbers and lists."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrofit_kernels import Neighbours

from lit_retrofit.errors import UserError
from lit_retrofit.mining.rules import MiningRules, ceilings, choose, count_drops

cosines = st.floats(-1, 1, width=32)


def bound(lowest: float, rules: MiningRules) -> float:
    limit = math.inf
    if rules.absolute_margin is not None:
        limit = min(limit, lowest - rules.absolute_margin)
    if rules.relative_margin is not None:
        limit = min(limit, rules.relative_margin * lowest if lowest > 0 else lowest - 0.05)
    if rules.max_score is not None:
        limit = min(limit, rules.max_score)
    return limit


@settings(max_examples=60, deadline=None)
@given(
    positives=st.lists(st.lists(cosines, min_size=1, max_size=4), min_size=1, max_size=5),
    absolute=st.none() | st.floats(0, 0.5),
    relative=st.none() | st.floats(0.1, 1),
    most=st.none() | st.floats(-0.5, 1),
)
def test_ceilings_are_the_lowest_bound_of_the_lowest_positive(positives, absolute, relative, most):
    rules = MiningRules(absolute_margin=absolute, relative_margin=relative, max_score=most)
    padded = torch.full((len(positives), 4), math.inf)
    for row, scores in enumerate(positives):
        padded[row, : len(scores)] = torch.tensor(scores)
    expected = [bound(min(scores), rules) for scores in positives]
    assert ceilings(padded, rules).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("positive", "expected"), [(0.8, 0.76), (0.0, -0.05), (-0.4, -0.45)], ids=["above", "zero", "below"]
)
def test_relative_margin_falls_back_where_it_is_not_defined(positive, expected):
    assert ceilings(torch.tensor([[positive]]), MiningRules()).item() == pytest.approx(expected)


def test_no_rule_in_force_means_no_ceiling():
    rules = MiningRules(relative_margin=None)
    assert ceilings(torch.tensor([[0.3], [-0.2]]), rules).tolist() == [math.inf, math.inf]


def survivors(counts: list[int], depth: int) -> Neighbours:
    """Query i has documents 100·i, 100·i + 1, … with falling scores."""
    indices = torch.full((len(counts), depth), -1)
    scores = torch.full((len(counts), depth), -math.inf)
    for row, count in enumerate(counts):
        indices[row, :count] = 100 * row + torch.arange(count)
        scores[row, :count] = 0.9 - 0.01 * torch.arange(count)
    return Neighbours(scores=scores, indices=indices)


def test_top_takes_the_best_after_the_skipped_ranks():
    rules = MiningRules(per_query=2, skip_ranks=3, rank_window=4, sampling="top")
    chosen = choose(survivors([7, 4, 3, 0], 7), rules, ["a", "b", "c", "d"])
    assert chosen.indices.tolist() == [[3, 4], [103, -1], [-1, -1], [-1, -1]]
    assert chosen.scores[0].tolist() == pytest.approx([0.87, 0.86])
    assert chosen.scores[1, 1] == -math.inf


def test_random_draws_without_repetition_inside_the_window_best_first():
    rules = MiningRules(per_query=3, skip_ranks=2, rank_window=6, sampling="random")
    chosen = choose(survivors([8] * 300, 8), rules, [f"q{i}" for i in range(300)])
    local = chosen.indices - 100 * torch.arange(300)[:, None]
    assert all(row == sorted(set(row)) and row[0] >= 2 and row[-1] <= 7 for row in local.tolist())
    # Each of the 6 ranks is drawn 150 times on average, with a standard deviation below 9.
    assert all(105 <= int((local == rank).sum()) <= 195 for rank in range(2, 8))


def test_the_window_ends_where_it_should_even_if_more_survivors_are_given():
    rules = MiningRules(per_query=2, skip_ranks=1, rank_window=2)
    assert choose(survivors([9], 9), rules, ["q"]).indices.tolist() == [[1, 2]]


def test_draws_do_not_depend_on_order_or_shards_but_on_the_seed():
    rules = MiningRules(per_query=3, rank_window=9)
    found, ids = survivors([9] * 20, 9), [f"query {i}" for i in range(20)]
    whole = choose(found, rules, ids).indices
    shard = Neighbours(scores=found.scores[7:12], indices=found.indices[7:12])
    assert torch.equal(choose(shard, rules, ids[7:12]).indices, whole[7:12])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    mixed = Neighbours(scores=found.scores[order], indices=found.indices[order])
    assert torch.equal(choose(mixed, rules, [ids[i] for i in order]).indices, whole[order])
    assert not torch.equal(choose(found, MiningRules(per_query=3, rank_window=9, seed=1), ids).indices, whole)


def test_drops_are_counted_for_the_first_rule_and_add_up():
    numbers = random.Random(0)
    rules = MiningRules(
        absolute_margin=0.03, relative_margin=0.95, max_score=0.6, skip_ranks=1, rank_window=9, per_query=2
    )
    expected = dict.fromkeys(
        ("identity", "absolute_margin", "relative_margin", "max_score", "skip_ranks", "eligible"), 0
    )
    scores, indices, known, positives = [], [], [], []
    for _ in range(40):
        found = numbers.sample(range(30), 10)
        row = sorted((numbers.uniform(-0.5, 1) for _ in found), reverse=True)
        mine = numbers.sample(range(30), 3)
        positive = numbers.uniform(-0.2, 1)
        skipped = 0
        for document, score in zip(found, row, strict=True):
            if document in mine:
                rule = "identity"
            elif score >= positive - 0.03:
                rule = "absolute_margin"
            elif score >= (0.95 * positive if positive > 0 else positive - 0.05):
                rule = "relative_margin"
            elif score >= 0.6:
                rule = "max_score"
            elif skipped < 1:
                rule, skipped = "skip_ranks", skipped + 1
            else:
                rule = "eligible"
            expected[rule] += 1
        scores.append(row), indices.append(found), known.append([*mine, -1]), positives.append([positive])
    nearest = Neighbours(scores=torch.tensor(scores), indices=torch.tensor(indices))
    counts = count_drops(nearest, torch.tensor(known), torch.tensor(positives), rules)
    assert counts == {"examined": 400, **expected}
    assert sum(expected.values()) == 400
    assert all(expected.values())


def test_padding_is_no_candidate():
    nearest = Neighbours(scores=torch.tensor([[0.4, -math.inf]]), indices=torch.tensor([[2, -1]]))
    counts = count_drops(nearest, torch.tensor([[0, -1]]), torch.tensor([[0.9]]), MiningRules())
    assert counts["examined"] == counts["eligible"] == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"absolute_margin": -0.1}, "absolute_margin"),
        ({"relative_margin": 0.0}, "relative_margin"),
        ({"relative_margin": 1.5}, "relative_margin"),
        ({"max_score": 7}, "max_score"),
        ({"absolute_margin": math.nan}, "absolute_margin"),
        ({"skip_ranks": -1}, "skip_ranks"),
        ({"per_query": 0}, "per_query"),
        ({"per_query": 20, "rank_window": 10}, "rank_window"),
        ({"sampling": "best"}, "sampling"),
    ],
)
def test_values_out_of_range_are_named_in_one_line(options, named):
    with pytest.raises(UserError, match=named) as caught:
        MiningRules(**options)
    assert "\n" not in str(caught.value)
