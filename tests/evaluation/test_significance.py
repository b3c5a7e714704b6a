import numpy as np
import pytest
from scipy.stats import norm

from lit_retrofit.evaluation.significance import adjust, interval, paired_difference


def test_the_interval_of_one_task_is_the_normal_one_for_many_queries():
    values = np.random.default_rng(1).uniform(size=2000)
    error = values.std(ddof=1) / np.sqrt(len(values))
    low, high = interval([values])
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 10)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 10)


def test_each_task_of_a_mean_has_the_same_weight():
    rng = np.random.default_rng(2)
    large, small = rng.normal(0.2, 0.1, 5000), rng.normal(0.8, 0.3, 50)
    error = np.sqrt(large.var(ddof=1) / 5000 + small.var(ddof=1) / 50) / 2
    low, high = interval([large, small])
    middle = (large.mean() + small.mean()) / 2
    assert (low, high) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=error / 8)


def test_few_differences_are_counted_out_by_hand():
    # all 2^5 exchanges: only the one of no exchange and the one of all are as extreme
    found = paired_difference([np.zeros(5)], [np.array([0.1, 0.2, 0.3, 0.4, 0.5])])
    assert found.p == pytest.approx(2 / 32)
    assert found.mean == pytest.approx(0.3)
    assert found.low > 0
    assert found.queries == 5


def test_the_p_value_is_near_the_z_test_for_many_queries():
    before = np.random.default_rng(3).uniform(size=400)
    after = before + np.random.default_rng(4).normal(0.02, 0.2, 400)
    differences = after - before
    z = differences.mean() / (np.sqrt((differences**2).mean()) / np.sqrt(400))
    found = paired_difference([before], [after])
    assert found.p == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)
    assert found.low < differences.mean() < found.high


def test_chance_alone_is_rarely_called_significant():
    rng = np.random.default_rng(5)
    p_values = [paired_difference([rng.uniform(size=12)], [rng.uniform(size=12)]).p for _ in range(60)]
    assert 0 <= sum(p < 0.05 for p in p_values) <= 8  # more than 8 of 60 have a probability of 0.3 %


def test_equal_models_and_single_queries():
    same = np.array([0.1, 0.9])
    found = paired_difference([same], [same])
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    one = paired_difference([np.array([0.1])], [np.array([0.6])])
    assert (one.mean, one.low, one.high, one.p) == (pytest.approx(0.5), 0.5, 0.5, 1)
    low, high = interval([np.array([0.5]), np.array([0.0, 1.0, 1.0])])
    assert (low, high) == (0.25, 0.75)


def test_the_seed_decides():
    values = [np.random.default_rng(6).uniform(size=20)]
    assert interval(values, seed=1) == interval(values, seed=1) != interval(values, seed=2)


def test_several_tests_at_once_are_adjusted():
    assert adjust([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert adjust([]) == []
