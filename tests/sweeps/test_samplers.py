"""Which trials a sweep has."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.sweeps import samplers
from lit_retrofit.sweeps.samplers import Outcome, draw, grid, make_sampler
from lit_retrofit.sweeps.space import Parameter, Sweep


def sweep(*parameters: Parameter, cap: int | None = None) -> Sweep:
    return Sweep(Path("s.yaml"), "s", "grid", "m", True, parameters, (), cap)


LETTERS = Parameter("letter", ("a", "b", [1]))
NUMBERS = Parameter("number", (1, 2))
RATE = Parameter("rate", (), None, "log_uniform_values", 1e-4, 1.0)


def test_a_grid_is_every_combination_once() -> None:
    found = [(trial["letter"], trial["number"]) for trial in grid(sweep(LETTERS, NUMBERS))]
    assert found == list(itertools.product(["a", "b", [1]], [1, 2]))
    assert [len(make_sampler(sweep(LETTERS, NUMBERS, cap=4), "grid", n, 0).trials) for n in (None, 3, 9)] == [
        4, 3, 4,
    ]  # fmt: skip


def test_random_trials_are_those_of_the_seed_and_of_their_distribution() -> None:
    whole = Parameter("n", (), None, "int_uniform", 1, 3)
    shares = Parameter("s", ("x", "y"), (0.9, 0.1))
    steps = Parameter("q", (), None, "q_uniform", 0.0, 1.0, 0.25)
    space = sweep(RATE, whole, shares, steps)
    found = draw(space, 2000, 3)
    assert found[:50] == draw(space, 50, 3) and found[:50] != draw(space, 50, 4)
    logs = [math.log10(trial["rate"]) for trial in found]
    assert min(logs) >= -4 and max(logs) <= 0 and abs(sum(logs) / len(logs) + 2) < 0.1
    assert {trial["n"] for trial in found} == {1, 2, 3}
    assert 0.87 < Counter(trial["s"] for trial in found)["x"] / 2000 < 0.93
    assert {trial["q"] for trial in found} == {0.0, 0.25, 0.5, 0.75, 1.0}


def play(sampler, score) -> list[Outcome]:
    ended: list[Outcome] = []
    while (values := sampler.next(ended)) is not None:
        ended.append(Outcome(values, score(values)))
    return ended


def test_optuna_learns_and_goes_on_as_if_it_had_not_stopped() -> None:
    pytest.importorskip("optuna")

    def score(values) -> float:
        return -abs(math.log10(values["rate"]) + 3) - (values["letter"] != [1])

    space = sweep(RATE, LETTERS)
    first = play(make_sampler(space, "bayes", 40, 0), score)
    assert len(first) == 40 and all(1e-4 <= outcome.values["rate"] <= 1 for outcome in first)
    by_chance = sum(score(values) for values in draw(space, 1000, 0)) / 1000
    late = [score(outcome.values) for outcome in first[20:]]
    assert sum(late) / len(late) > by_chance / 2
    again = make_sampler(space, "bayes", 40, 0).next(first[:25])  # another process after 25 trials
    assert again == first[25].values
    # A failed trial has no score, and is not suggested to be the best.
    assert make_sampler(space, "bayes", 3, 0).next([Outcome(first[0].values, None)]) is not None


def test_mistakes(monkeypatch) -> None:
    with pytest.raises(UserError, match="'rate' is a range"):
        make_sampler(sweep(RATE), "grid", None, 0)
    for method in ("random", "bayes"):
        with pytest.raises(UserError, match="never ends; give run_cap"):
            make_sampler(sweep(RATE), method, None, 0)
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lit-retrofit\[sweeps\]'"):
        make_sampler(sweep(RATE), "bayes", 3, 0)
