"""Intervals: against scipy and published examples, at 0 and 1, and how often they hold the truth with few runs."""

import numpy as np
import pytest
from coverage_of_intervals import (
    of_difference,
    of_improvement,
    of_iqm,
    of_kendall,
    of_mean,
    of_profile,
    of_resampled_improvement,
)
from scipy.stats import binomtest, ttest_1samp

from kfbench.reporting import bootstrap, intervals, stats

RNG = np.random.default_rng(7)
SCORES = RNG.normal(1, 0.5, (5, 7))
OTHER = np.round(RNG.normal(0.8, 0.5, (4, 7)), 1)


def test_the_mean_of_one_task_has_students_interval():
    x = SCORES[:, :1]
    of = intervals.mean(x)
    theirs = ttest_1samp(x[:, 0], 0).confidence_interval(0.95)
    assert of == pytest.approx((x.mean(), theirs.low, theirs.high))


def test_the_mean_of_two_tasks_is_welch():
    """Student's interval of a difference of two means is that of the mean over two tasks, doubled."""
    from scipy.stats import ttest_ind

    x = np.array([[1.0, -3.0], [2.5, -9.0], [0.5, -4.0], [np.nan, -1.0]])
    of = intervals.mean(x)
    theirs = ttest_ind(x[:3, 0], -x[:, 1], equal_var=False).confidence_interval(0.95)
    assert (2 * of.low, 2 * of.high) == pytest.approx((theirs.low, theirs.high))


def test_the_iqm_has_the_bootstraps_interval_stretched():
    of = intervals.iqm(SCORES, repeats=20_000)
    low, high = bootstrap.percentiles(stats.iqm, SCORES, repeats=20_000)
    assert of.value == stats.iqm(SCORES)
    factor = (of.high - of.value) / (high - of.value)
    assert factor == pytest.approx((of.value - of.low) / (of.value - low))
    assert np.sqrt(5 / 4) < factor < 1.25  # n / (n - 1), and t of about 25 degrees of freedom over 1.96


def test_many_runs_need_no_stretching():
    x = np.random.default_rng(0).normal(size=(400, 2))
    of, plain = intervals.iqm(x, repeats=5000), bootstrap.percentiles(stats.iqm, x, repeats=5000)
    assert (of.low, of.high) == pytest.approx(plain, abs=0.01 * (plain[1] - plain[0]))


@pytest.mark.parametrize("estimate", [intervals.mean, intervals.iqm])
def test_what_the_runs_do_not_determine_is_nan(estimate):
    single = np.array([[1.0, 2.0], [1.5, np.nan]])
    for x in (np.ones((3, 2)), 0.1 + 0.2 * np.ones((3, 1)), single, single[:1]):
        of = estimate(x)
        assert np.isfinite(of.value) and np.isnan(of.low) and np.isnan(of.high)
    assert np.isnan(estimate(np.full((3, 2), np.nan)).value)


def test_a_profile_of_one_task_has_wilsons_interval():
    x = np.arange(8.0)[:, None]
    share = stats.profile(x, np.arange(-0.5, 9))
    low, high = intervals.wilson(share, intervals.worth(x))
    for at, above in enumerate((8 - np.arange(10)).clip(0)):
        theirs = binomtest(int(above), 8).proportion_ci(method="wilson")
        assert (share[at], low[at], high[at]) == pytest.approx((above / 8, theirs.low, theirs.high), abs=1e-12)
    assert low[0] < 1 == high[0] and low[-1] == 0 < high[-1]


def test_tasks_with_fewer_runs_count_as_tasks():
    """Two runs of one task and four of another are worth 5.3, not 6."""
    x = np.array([[0.0, 2.0], [1.0, 3.0], [np.nan, 4.0], [np.nan, 5.0]])
    runs = 2**2 / (1 / 2 + 1 / 4)
    assert intervals.worth(x) == pytest.approx(runs)
    low, _ = intervals.wilson(1.0, runs)
    assert low == pytest.approx(runs / (runs + 1.959964**2))
    assert intervals.worth(np.full((2, 2), np.nan)) == 0


def test_improvement_is_newcombes_with_students_t():
    """His equation of the fifth method, solved by a grid of 100,001 values."""
    x, y = np.array([3.0, 5, 6, 8, 9])[:, None], np.array([1.0, 2, 5, 7])[:, None]
    of = intervals.improvement(x, y)
    assert of.value == pytest.approx((2 + 2.5 + 3 + 4 + 4) / 20)
    p = np.linspace(0, 1, 100_001)
    variance = p * (1 - p) * (1 + (9 / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))) / 20
    from scipy.stats import t

    inside = p[(p - of.value) ** 2 <= t.ppf(0.975, 7) ** 2 * variance]
    assert (of.low, of.high) == pytest.approx((inside.min(), inside.max()), abs=2e-5)


def test_improvement_is_symmetric_and_holds_the_estimate():
    of, back = intervals.improvement(SCORES, OTHER), intervals.improvement(OTHER, SCORES)
    assert 0 < of.low < of.value < of.high < 1
    assert (back.value, back.low, back.high) == pytest.approx((1 - of.value, 1 - of.high, 1 - of.low))


def test_three_wins_of_three_do_not_make_certain():
    """An exact test of three runs against three has p = 0.1 at best: the interval holds a half, four tasks do not."""
    up, down = np.ones((3, 1)), np.zeros((3, 1))
    of = intervals.improvement(up, down)
    assert of.value == of.high == 1 and 0.3 < of.low < 0.5
    assert intervals.improvement(down, up) == pytest.approx((0, 0, 1 - of.low))
    assert intervals.improvement(np.tile(up, 4), np.tile(down, 4)).low > 0.7
    lows = [intervals.improvement(np.ones((n, 1)), np.zeros((n, 1))).low for n in (2, 3, 5, 10, 30)]
    assert lows == sorted(lows) and lows[-1] > 0.9


def test_improvement_without_runs_or_with_single_ones_has_no_interval():
    of = intervals.improvement([[1.0]], [[0.0]])
    assert of.value == 1 and np.isnan(of.low)
    assert np.isnan(intervals.improvement([[np.nan]], [[0.0]]).value)
    lacking = np.hstack([SCORES, np.full((5, 1), np.nan)])
    more = np.hstack([OTHER, np.ones((4, 1))])
    assert intervals.improvement(lacking, more) == intervals.improvement(SCORES, OTHER)


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("chances", [(0.5,), (0.9,), (0.95,), (0.99,), (0.9,) * 4, (0.99,) * 4, (0.99, 0.9, 0.7, 0.5)])
def test_improvement_holds_the_truth(runs, chances):
    """At least 95 % of 300 studies do, less three standard errors."""
    assert of_improvement(runs, chances, 300) > 0.95 - 0.038


@pytest.mark.parametrize("kind", [{"shared": 0.5}, {"shared": 0.9}, {"ratio": 4.0}])
def test_improvement_holds_the_truth_when_seeds_are_shared_or_spreads_differ(kind):
    for chance in (0.5, 0.9, 0.99):
        assert of_improvement(3, (chance,), 300, **kind) > 0.95 - 0.038


def test_the_percentile_bootstrap_does_not():
    """What the report used before: the simulation tells a bad interval from a good one."""
    assert of_resampled_improvement(3, (0.99,), 100) < 0.2
    assert of_profile(3, (0.9,), 100, resampled=True) < 0.5
    assert of_mean(3, 1, 100, resampled=True) < 0.85 and of_iqm(3, 1, 100, resampled=True) < 0.85


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("chances", [(0.5,), (0.9,), (0.99,), (0.98,) * 4, (0.9,) * 10, (0.99, 0.9, 0.5, 0.1)])
def test_a_profile_holds_the_truth(runs, chances):
    """Wilson's coverage of few runs jumps with the truth, and is 0.95 on average: at least 0.9 here."""
    assert of_profile(runs, chances, 300) > 0.9 - 0.02


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("tasks", [1, 4])
def test_mean_iqm_and_difference_hold_the_truth(runs, tasks):
    for measure in (of_mean, of_iqm, of_difference):
        assert measure(runs, tasks, 150) > 0.95 - 0.053


def test_kendalls_interval_has_a_width_at_its_ends_and_is_nan_for_too_few():
    whole = intervals.kendall(1.0, 8)
    assert whole.high == pytest.approx(1) and 0.3 < whole.low < 0.6
    assert intervals.kendall(-1.0, 8).low == pytest.approx(-1)
    assert intervals.kendall(0.0, 8).high == pytest.approx(-intervals.kendall(0.0, 8).low)
    assert np.isnan(intervals.kendall(0.5, 3).low) and np.isnan(intervals.kendall(np.nan, 9).high)


@pytest.mark.parametrize("tau", [0.0, 0.6, 0.9])
def test_kendalls_interval_holds_the_truth(tau):
    assert 0.93 <= of_kendall(8, tau, 600) <= 1
