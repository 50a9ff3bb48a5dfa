"""Differences of runs that share a seed: paired, with an interval that minds small samples."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from kfbench.reporting import pairs

RNG = np.random.default_rng(7)


def test_difference_is_paired():
    """A shift far below the spread between seeds is clear when seeds are shared."""
    x = RNG.normal(0, 10, (5, 1))
    noise = RNG.normal(0, 0.1, (5, 1))
    found = pairs.difference(x + 1 + noise, x)
    assert found.is_clear and found.low < 1 < found.high and found.pairs == 5
    one = ttest_1samp((1 + noise).ravel(), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((one.low, one.high))  # of five pairs Student's is the wider
    assert found.more_seeds == 0


def test_difference_drops_half_pairs_and_refuses_single_ones():
    x, y = np.array([[1.0], [2], [np.nan], [4]]), np.array([[0.5], [1.7], [9], [np.nan]])
    found = pairs.difference(x, y)
    assert found.pairs == 2 and found.value == pytest.approx(0.4)
    single = pairs.difference(x[:1], y[:1])
    assert single.value == 0.5 and np.isnan(single.low) and not single.is_clear and single.more_seeds is None
    nothing = pairs.difference([[np.nan]], [[1.0]])
    assert nothing.pairs == 0 and np.isnan(nothing.value) and not nothing.is_clear


def test_more_seeds_is_enough_and_not_too_many():
    gaps = np.array([[0.1], [2.0], [-0.6], [1.1]])
    found = pairs.difference(gaps, np.zeros((4, 1)))
    assert not found.is_clear and found.more_seeds is not None
    sd, value = gaps.std(ddof=1), gaps.mean()
    from scipy.stats import t

    n = 4 + found.more_seeds
    assert value > t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    assert value <= t.ppf(0.975, n - 2) * sd / np.sqrt(n - 1)
    assert pairs.difference([[1.0], [-1.0]], [[0.0], [0.0]]).more_seeds is None


def test_difference_covers_zero_when_nothing_differs():
    """Of 400 studies of three seeds without any difference, about one in twenty may claim one."""
    rng = np.random.default_rng(3)
    wrong = sum(pairs.difference(rng.normal(size=(3, 1)), np.zeros((3, 1)), repeats=200).is_clear for _ in range(400))
    assert wrong < 32  # 5 % of 400 is 20; the bootstrap alone gives about 100


def test_pairs_that_all_differ_by_the_same_tell_no_interval():
    """Three coins may fall alike; rounding is no spread either."""
    x, y = np.array([[50.1], [60.2], [70.3]]), np.array([[49.1], [59.2], [69.3]])
    for gap in (pairs.difference(x, y), pairs.difference(np.full((3, 2), -21.0), np.full((3, 2), -21.0))):
        assert gap.is_constant and np.isnan(gap.low) and not gap.is_clear and gap.more_seeds is None
    assert not pairs.difference(x[:1], y[:1]).is_constant
