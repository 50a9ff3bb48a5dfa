"""Transfer metrics by hand, with censored runs and gaps."""

import numpy as np
import pytest

from kfbench.reporting import transfer_metrics

TIMES = [0.0, 10, 20, 30]
CURVES = np.array([[0.0, 1, 2, 3], [1, 1, 1, 1], [0, np.nan, 4, 4]])


def test_area_is_the_trapezium_rule():
    assert transfer_metrics.area(TIMES, CURVES)[:2] == pytest.approx([1.5, 1.0])
    assert transfer_metrics.area(TIMES, CURVES)[2] == pytest.approx((0.5 * (0 + 4) * 20 + 4 * 10) / 30)
    assert np.isnan(transfer_metrics.area([0.0], [1.0])) and np.isnan(
        transfer_metrics.area(TIMES, [1, np.nan, np.nan, np.nan])
    )


def test_ratio_of_areas():
    assert transfer_metrics.area_ratio(TIMES, CURVES[:1], CURVES[1:2]) == pytest.approx(1.5)
    assert np.isnan(transfer_metrics.area_ratio(TIMES, CURVES, -CURVES))


def test_time_to_threshold_censors():
    times, observed = transfer_metrics.time_to_threshold(TIMES, np.vstack([CURVES, np.full(4, np.nan)]), 2.0)
    assert times[:3].tolist() == [20, 30, 20] and np.isnan(times[3])
    assert observed.tolist() == [True, False, True, False]
    cut, seen = transfer_metrics.time_to_threshold(TIMES, [[0, 1, np.nan, np.nan]], 2.0)
    assert cut.tolist() == [10] and not seen[0]


def test_survival_by_hand():
    """Kaplan-Meier: arrivals at 5 and 15, one run lost at 10."""
    events, still = transfer_metrics.survival([5, 10, 15, 20], [True, False, True, False])
    assert events.tolist() == [5, 15]
    assert still == pytest.approx([3 / 4, 3 / 4 * 1 / 2])
    assert transfer_metrics.restricted_mean([5, 10, 15, 20], [True, False, True, False], 20) == pytest.approx(
        5 + 7.5 + 0.375 * 5
    )


def test_restricted_mean_without_censoring_is_the_mean():
    assert transfer_metrics.restricted_mean([5, 10, 15], [True] * 3, 100) == pytest.approx(10)
    assert np.isnan(transfer_metrics.restricted_mean([np.nan], [False], 10))
