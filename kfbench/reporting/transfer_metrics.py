"""Transfer metrics of learning curves: area ratio, time to threshold with censored runs.

Source: Taylor & Stone, JMLR 10:1633-1685, 2009; the transfer score is Rusu et al. 2016 (arXiv 1606.04671): area under a
method's curve over that of training from scratch. Kaplan & Meier 1958 for runs that never reach a threshold.
Curves are given as times [T] (steps, frames or epochs, rising) and scores [T] or [N, T], higher is better.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def area(times: ArrayLike, scores: ArrayLike) -> Array:
    """Return the time-averaged score: the area under the curve over its length, by trapezia; [..., T] -> [...].

    Points without a score are left out; a curve of fewer than two points has the area NaN.
    """
    x, y = np.asarray(times, float), np.asarray(scores, float)
    flat = y.reshape(-1, y.shape[-1])
    areas = np.full(len(flat), np.nan)
    for row, values in enumerate(flat):
        there = ~np.isnan(values)
        if there.sum() > 1 and np.ptp(x[there]) > 0:
            areas[row] = np.trapezoid(values[there], x[there]) / np.ptp(x[there])
    return areas.reshape(y.shape[:-1])


def area_ratio(
    times: ArrayLike, scores: ArrayLike, baseline: ArrayLike, baseline_times: ArrayLike | None = None
) -> float:
    """Return the transfer score: mean area of runs [N, T] over mean area of the baseline's runs [K, T].

    The baseline's times are the same unless given. Only for scores with a meaningful zero (accuracy, or returns less
    the random return): it is not offset-invariant. NaN if the baseline's mean area is not positive.
    """
    other = times if baseline_times is None else baseline_times
    ours, theirs = _mean(area(times, scores)), _mean(area(other, baseline))
    return ours / theirs if theirs > 0 else np.nan


def time_to_threshold(times: ArrayLike, scores: ArrayLike, threshold: float) -> tuple[Array, NDArray[np.bool_]]:
    """Return when each run [N, T] first scores at least `threshold`, [N], and whether it did, [N].

    A run that never does is censored: its time is that of its last point. A run without any point is (NaN, False).
    """
    x, y = np.asarray(times, float), np.atleast_2d(np.asarray(scores, float))
    there = ~np.isnan(y)
    reached = there & (np.where(there, y, -np.inf) >= threshold)
    observed = reached.any(-1)
    last = np.where(there.any(-1), x[y.shape[-1] - 1 - there[:, ::-1].argmax(-1)], np.nan)
    return np.where(observed, x[reached.argmax(-1)], last), observed


def survival(times: ArrayLike, observed: ArrayLike) -> tuple[Array, Array]:
    """Return the Kaplan-Meier curve: event times [E], and the share of runs not arrived after each, [E]."""
    t, seen = np.asarray(times, float), np.asarray(observed, bool)
    t, seen = t[~np.isnan(t)], seen[~np.isnan(t)]
    events = np.unique(t[seen])
    at_risk = (t[:, None] >= events).sum(0)
    arrived = ((t[:, None] == events) & seen[:, None]).sum(0)
    return events, np.cumprod(1 - arrived / np.maximum(at_risk, 1))


def restricted_mean(times: ArrayLike, observed: ArrayLike, horizon: float) -> float:
    """Return the mean time to the threshold, counted up to `horizon`: the area under the survival curve."""
    if not np.isfinite(np.asarray(times, float)).any():
        return np.nan
    events, still = survival(times, observed)
    before = events < horizon
    edges = np.concatenate([[0.0], events[before], [horizon]])
    levels = np.concatenate([[1.0], still[before]])
    return float((np.diff(edges) * levels).sum())


def _mean(values: Array) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else np.nan
