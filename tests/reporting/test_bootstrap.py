"""The stratified bootstrap against a slow loop, and what it may never draw."""

import time

import numpy as np
import pytest
from scipy.stats import trim_mean

from kfbench.reporting import bootstrap, stats

RNG = np.random.default_rng(7)
SCORES = RNG.normal(1, 0.5, (5, 7))


def test_resamples_stay_within_their_task_and_never_draw_a_missing_run():
    x = np.array([[1.0, 10, 100], [2, np.nan, 200], [3, 30, np.nan]])
    drawn = np.concatenate(list(bootstrap.resamples(x, repeats=4000, rng=np.random.default_rng(0))))
    assert drawn.shape == (4000, 3, 3)
    assert set(drawn[:, :, 0].ravel()) == {1, 2, 3}
    assert set(drawn[:, :, 1][~np.isnan(drawn[:, :, 1])]) == {10, 30}
    assert (np.isnan(drawn).sum((1, 2)) == 2).all()
    share = (drawn[:, :, 0] == 1).mean()
    assert share == pytest.approx(1 / 3, abs=0.02)


def test_resampling_is_independent_between_tasks():
    x = np.tile(np.arange(4.0)[:, None], (1, 2))
    drawn = np.concatenate(list(bootstrap.resamples(x, repeats=5000, rng=np.random.default_rng(0))))
    correlation = np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1]
    assert abs(correlation) < 0.03


def test_bootstrap_agrees_with_a_slow_loop_and_its_seed_decides():
    rng = np.random.default_rng(1)
    slow = []
    for _ in range(4000):
        drawn = [[SCORES[rng.integers(5), m] for m in range(7)] for _ in range(5)]
        slow.append(trim_mean(np.array(drawn), 0.25, axis=None))
    fast = bootstrap.percentiles(stats.iqm, SCORES, repeats=20_000)
    assert fast == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.02)
    assert fast == bootstrap.percentiles(stats.iqm, SCORES, repeats=20_000)
    assert fast != bootstrap.percentiles(stats.iqm, SCORES, repeats=20_000, seed=1)


def test_chunks_do_not_change_the_shape(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    sizes = [len(chunk) for chunk in bootstrap.resamples(SCORES, repeats=7, rng=np.random.default_rng(0))]
    assert sum(sizes) == 7 and max(sizes) == 2


@pytest.mark.parametrize("runs", [1, 2, 5, 7, 13])
def test_rows_drawn_in_groups_are_uniform_and_independent(runs):
    """Every pair of rows of a task takes every pair of values equally often."""
    x = np.stack([np.arange(runs), 100 + np.arange(runs)], axis=1).astype(float)
    drawn = np.concatenate(list(bootstrap.resamples(x, repeats=20_000, rng=np.random.default_rng(0))))
    assert drawn.shape == (20_000, runs, 2)
    assert set(drawn[..., 0].ravel()) == set(range(runs)) and set(drawn[..., 1].ravel()) == set(range(100, 100 + runs))
    for first, second in [(0, runs - 1), (runs // 2, 0)]:
        if first == second:
            continue
        counts = np.histogram2d(drawn[:, first, 0], drawn[:, second, 0], bins=runs)[0]
        assert counts == pytest.approx(20_000 / runs**2, abs=5 * (20_000 / runs**2) ** 0.5)


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
        bootstrap.percentiles(stats.iqm, scores, repeats=20_000)
        return (time.perf_counter() - began) / 20_000

    assert min(loop() for _ in range(3)) > 100 * min(ours() for _ in range(3))
