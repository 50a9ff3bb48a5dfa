"""Statistics against slow loops written from rliable's definitions, and the traps: NaN, unequal seeds."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from kfbench.games.reference import REFERENCES, human_normalised
from kfbench.reporting import stats

RNG = np.random.default_rng(7)
SCORES = RNG.normal(1, 0.5, (5, 7))
OTHER = np.round(RNG.normal(0.8, 0.5, (4, 7)), 1)


def test_iqm_is_the_trimmed_mean_of_all_scores():
    for shape in ((5, 7), (3, 1), (1, 3), (2, 2), (10, 26)):
        x = RNG.normal(size=shape)
        assert stats.iqm(x) == pytest.approx(trim_mean(x, 0.25, axis=None), abs=1e-12)


def test_mean_is_of_task_means():
    means = [sum(column) / len(column) for column in SCORES.T]
    assert stats.mean(SCORES) == pytest.approx(sum(means) / 7)


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


@pytest.mark.parametrize("statistic", [stats.mean, stats.iqm])
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


def test_tasks_count_alike_in_the_iqm_however_many_runs_they_have():
    """By repeating the scores of each task until all tasks have as many; a failed run must not weigh others more."""
    x = SCORES.copy()
    x[3, 2] = x[4, 5] = x[3, 5] = np.nan
    alike = [np.repeat(column, 60 // len(column)) for column in (task[~np.isnan(task)] for task in x.T)]
    assert {len(column) for column in alike} == {60}
    assert stats.iqm(x) == pytest.approx(trim_mean(np.concatenate(alike), 0.25))
    assert stats.iqm(np.stack([x, x + 1])) == pytest.approx(np.array([0.0, 1.0]) + stats.iqm(x))
    other = np.roll(x, 1, axis=1)
    with pytest.raises(ValueError, match="same number"):
        stats.iqm(np.stack([x, other]))


def test_scores_must_be_runs_by_tasks():
    with pytest.raises(ValueError, match="runs × tasks"):
        stats.mean([1.0, 2.0])


def test_human_normalised():
    assert len(REFERENCES) == 57
    assert human_normalised("krull", 1598.0) == 0 and human_normalised("krull", 2665.5) == 1
    assert human_normalised("air_raid", 1.0) is None and human_normalised("carnival", 1.0) is None
    assert human_normalised("pong", 0.0) == pytest.approx(20.7 / 35.3)
