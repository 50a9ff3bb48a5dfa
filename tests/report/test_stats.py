"""Statistics against slow loops written from rliable's definitions, and the traps: NaN, few pairs, unequal seeds."""

import time
from itertools import product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean, ttest_1samp

from kfbench.games.reference import REFERENCES, human_normalised
from kfbench.report import stats

RNG = np.random.default_rng(7)
SCORES = RNG.normal(1, 0.5, (5, 7))
OTHER = np.round(RNG.normal(0.8, 0.5, (4, 7)), 1)


def test_iqm_is_the_trimmed_mean_of_all_scores():
    for shape in ((5, 7), (3, 1), (1, 3), (2, 2), (10, 26)):
        x = RNG.normal(size=shape)
        assert stats.iqm(x) == pytest.approx(trim_mean(x, 0.25, axis=None), abs=1e-12)


def test_mean_and_median_are_of_task_means():
    means = [sum(column) / len(column) for column in SCORES.T]
    assert stats.mean(SCORES) == pytest.approx(sum(means) / 7)
    assert stats.median(SCORES) == pytest.approx(sorted(means)[3])


def test_optimality_gap_slow():
    slow = sum(min(value, 1.0) for value in SCORES.flat) / SCORES.size
    assert stats.optimality_gap(SCORES) == pytest.approx(1 - slow)


def test_profile_slow_and_strict():
    taus = [0.0, 0.5, float(SCORES[0, 0]), 2.0]
    slow = [sum(value > tau for value in SCORES.flat) / SCORES.size for tau in taus]
    assert stats.profile(SCORES, taus) == pytest.approx(slow)
    assert stats.profile(np.stack([SCORES, SCORES + 1]), taus).shape == (2, 4)
    assert stats.profile([[1.0]], [1.0]) == 0  # strict


def test_improvement_is_mann_whitney():
    slow = 0.0
    for m in range(7):
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(SCORES[:, m], OTHER[:, m])]
        slow += sum(wins) / len(wins) / 7
    assert stats.improvement(SCORES, OTHER) == pytest.approx(slow)
    u = [mannwhitneyu(SCORES[:, m], OTHER[:, m]).statistic / 20 for m in range(7)]
    assert stats.improvement(SCORES, OTHER) == pytest.approx(np.mean(u))
    assert stats.improvement(OTHER, OTHER) == pytest.approx(0.5)
    assert stats.improvement(SCORES, OTHER) + stats.improvement(OTHER, SCORES) == pytest.approx(1)


@pytest.mark.parametrize("statistic", [stats.mean, stats.median, stats.iqm, stats.optimality_gap])
def test_missing_runs_count_as_absent(statistic):
    x = SCORES.copy()
    x[3, 2] = x[4, 5] = np.nan
    padded = np.vstack([x, np.full((2, 7), np.nan)])
    extra = np.hstack([x, np.full((5, 1), np.nan)])
    assert np.isfinite(statistic(x))
    assert statistic(padded) == statistic(extra) == statistic(x)
    only = np.where(np.arange(5)[:, None] < 2, x, np.nan)
    assert statistic(only) == pytest.approx(float(statistic(x[:2])))
    assert np.isnan(statistic(np.full((3, 2), np.nan)))


def test_missing_runs_in_iqm_slow():
    x = SCORES.copy()
    x[3, 2] = x[4, 5] = np.nan
    assert stats.iqm(x) == pytest.approx(trim_mean(x[~np.isnan(x)], 0.25))


def test_resamples_stay_within_their_task_and_never_draw_a_missing_run():
    x = np.array([[1.0, 10, 100], [2, np.nan, 200], [3, 30, np.nan]])
    drawn = np.concatenate(list(stats.resamples(x, repeats=4000, rng=np.random.default_rng(0))))
    assert drawn.shape == (4000, 3, 3)
    assert set(drawn[:, :, 0].ravel()) == {1, 2, 3}
    assert set(drawn[:, :, 1][~np.isnan(drawn[:, :, 1])]) == {10, 30}
    assert (np.isnan(drawn).sum((1, 2)) == 2).all()
    share = (drawn[:, :, 0] == 1).mean()
    assert share == pytest.approx(1 / 3, abs=0.02)


def test_resampling_is_independent_between_tasks():
    x = np.tile(np.arange(4.0)[:, None], (1, 2))
    drawn = np.concatenate(list(stats.resamples(x, repeats=5000, rng=np.random.default_rng(0))))
    correlation = np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1]
    assert abs(correlation) < 0.03


def test_bootstrap_agrees_with_a_slow_loop_and_its_seed_decides():
    rng = np.random.default_rng(1)
    slow = []
    for _ in range(4000):
        drawn = [[SCORES[rng.integers(5), m] for m in range(7)] for _ in range(5)]
        slow.append(trim_mean(np.array(drawn), 0.25, axis=None))
    fast = stats.bootstrap(stats.iqm, SCORES, repeats=20_000)
    assert (fast.low, fast.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.02)
    assert fast == stats.bootstrap(stats.iqm, SCORES, repeats=20_000)
    assert fast != stats.bootstrap(stats.iqm, SCORES, repeats=20_000, seed=1)


def test_chunks_do_not_change_the_shape(monkeypatch):
    monkeypatch.setattr(stats, "CHUNK", 100)
    sizes = [len(chunk) for chunk in stats.resamples(SCORES, repeats=7, rng=np.random.default_rng(0))]
    assert sum(sizes) == 7 and max(sizes) == 2


@pytest.mark.parametrize("runs", [1, 2, 5, 7, 13])
def test_rows_drawn_in_groups_are_uniform_and_independent(runs):
    """Every pair of rows of a task takes every pair of values equally often."""
    x = np.stack([np.arange(runs), 100 + np.arange(runs)], axis=1).astype(float)
    drawn = np.concatenate(list(stats.resamples(x, repeats=20_000, rng=np.random.default_rng(0))))
    assert drawn.shape == (20_000, runs, 2)
    assert set(drawn[..., 0].ravel()) == set(range(runs)) and set(drawn[..., 1].ravel()) == set(range(100, 100 + runs))
    for first, second in [(0, runs - 1), (runs // 2, 0)]:
        if first == second:
            continue
        counts = np.histogram2d(drawn[:, first, 0], drawn[:, second, 0], bins=runs)[0]
        assert counts == pytest.approx(20_000 / runs**2, abs=5 * (20_000 / runs**2) ** 0.5)


def test_profile_and_improvement_intervals_hold_the_estimate():
    taus = np.linspace(0, 2, 9)
    value, low, high = stats.bootstrap_profile(SCORES, taus, repeats=500)
    assert value.shape == low.shape == high.shape == (9,)
    assert (low <= value).all() and (value <= high).all() and (np.diff(value) <= 0).all()
    found = stats.bootstrap_improvement(SCORES, OTHER)
    assert found.low < found.value < found.high


def test_difference_is_paired():
    """A shift far below the spread between seeds is clear when seeds are shared."""
    x = RNG.normal(0, 10, (5, 1))
    noise = RNG.normal(0, 0.1, (5, 1))
    found = stats.difference(x + 1 + noise, x)
    assert found.is_clear and found.low < 1 < found.high and found.pairs == 5
    one = ttest_1samp((1 + noise).ravel(), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((one.low, one.high))  # of five pairs Student's is the wider
    assert found.more_seeds == 0


def test_difference_drops_half_pairs_and_refuses_single_ones():
    x, y = np.array([[1.0], [2], [np.nan], [4]]), np.array([[0.5], [1.7], [9], [np.nan]])
    found = stats.difference(x, y)
    assert found.pairs == 2 and found.value == pytest.approx(0.4)
    single = stats.difference(x[:1], y[:1])
    assert single.value == 0.5 and np.isnan(single.low) and not single.is_clear and single.more_seeds is None
    nothing = stats.difference([[np.nan]], [[1.0]])
    assert nothing.pairs == 0 and np.isnan(nothing.value) and not nothing.is_clear


def test_more_seeds_is_enough_and_not_too_many():
    pairs = np.array([[0.1], [2.0], [-0.6], [1.1]])
    found = stats.difference(pairs, np.zeros((4, 1)))
    assert not found.is_clear and found.more_seeds is not None
    sd, value = pairs.std(ddof=1), pairs.mean()
    from scipy.stats import t

    n = 4 + found.more_seeds
    assert value > t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    assert value <= t.ppf(0.975, n - 2) * sd / np.sqrt(n - 1)
    assert stats.difference([[1.0], [-1.0]], [[0.0], [0.0]]).more_seeds is None


def test_difference_covers_zero_when_nothing_differs():
    """Of 400 studies of three seeds without any difference, about one in twenty may claim one."""
    rng = np.random.default_rng(3)
    wrong = sum(stats.difference(rng.normal(size=(3, 1)), np.zeros((3, 1)), repeats=200).is_clear for _ in range(400))
    assert wrong < 32  # 5 % of 400 is 20; the bootstrap alone gives about 100


def test_scores_must_be_runs_by_tasks():
    with pytest.raises(ValueError, match="runs × tasks"):
        stats.mean([1.0, 2.0])


def test_human_normalised():
    assert len(REFERENCES) == 57
    assert human_normalised("krull", 1598.0) == 0 and human_normalised("krull", 2665.5) == 1
    assert human_normalised("krull", 1151.9, "human") == 0
    assert human_normalised("air_raid", 1.0) is None and human_normalised("carnival", 1.0) is None
    assert (
        human_normalised("video_pinball", 15641.1, "human") == 1 and human_normalised("video_pinball", 0, "human") == 0
    )


def test_a3c_figures_of_this_table():
    """River Raid and Pong of A3C, 1 day, with human starts, by hand."""
    assert human_normalised("riverraid", 10001.2, "human") == pytest.approx((10001.2 - 588.3) / (14382.2 - 588.3))
    assert human_normalised("pong", 11.4, "human") == pytest.approx(29.4 / 33.5)


def test_a_hundred_times_faster_than_a_loop_over_resamples():
    """The loop is rliable's: rows drawn task by task, then scipy's trimmed mean. Best of three each."""
    scores = RNG.normal(size=(5, 26))

    def loop():
        began = time.perf_counter()
        for _ in range(300):
            drawn = np.stack([column[np.random.default_rng().integers(0, 5, 5)] for column in scores.T], axis=1)
            trim_mean(drawn, 0.25, axis=None)
        return (time.perf_counter() - began) / 300

    def ours():
        began = time.perf_counter()
        stats.bootstrap(stats.iqm, scores, repeats=20_000)
        return (time.perf_counter() - began) / 20_000

    assert min(loop() for _ in range(3)) > 100 * min(ours() for _ in range(3))
