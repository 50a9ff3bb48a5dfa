"""What is estimated from scores over runs × tasks: mean, interquartile mean, profile, probability of improvement.

Scores come as an array [N, M], run (seed) by task; NaN marks a run that is missing or failed and never enters a number.
`intervals` has the interval of each, `pairs` the difference of runs that share a seed.

Source: Agarwal et al., NeurIPS 2021, arXiv 2108.13264, and the definitions in its library rliable.
Differs: missing runs are left out, and in the interquartile mean tasks count alike however many runs each has.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
LEVEL = 0.95  # of every interval


def mean(scores: ArrayLike) -> Array:
    """Return the mean of the tasks' means, over the last two axes [..., N, M] -> [...]."""
    means = task_means(scores)
    present = ~np.isnan(means).reshape(-1, means.shape[-1]).all(0)  # the same tasks along the leading axes
    if not present.any():
        return np.full(means.shape[:-1], np.nan)
    return np.asarray(means[..., present].mean(-1))


def iqm(scores: ArrayLike) -> Array:
    """Return the mean of the middle half of all scores (25 % trimmed mean, scipy's `trim_mean`), [..., N, M] -> [...].

    Where tasks have different numbers of runs, the scores of each weigh as much as those of another, and of a score at
    an end of the middle half a part is taken. The number of NaN in a task must be the same along the leading axes, as
    it is in resamples.
    """
    x = as_scores(scores)
    flat = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    if not flat.size:
        return np.full(flat.shape[:-1], np.nan)
    rising = np.sort(flat, axis=-1)  # NaN last
    if not np.isnan(rising[..., -1]).any():
        return _middle(rising, flat.shape[-1])
    runs = (~np.isnan(x)).sum(-2).reshape(-1, x.shape[-1])  # [any, M]
    if (runs != runs[0]).any():
        raise ValueError("iqm: all resamples must have the same number of scores")
    there = runs[0][runs[0] > 0]
    if not len(there):
        return np.full(flat.shape[:-1], np.nan)
    if (there == there[0]).all():
        return _middle(rising, int(there.sum()))
    of_score = np.broadcast_to(1 / np.maximum(runs[0], 1) / len(there), x.shape[-2:]).ravel()  # [N M]; they sum to 1
    order = np.argsort(flat, axis=-1)
    weight = np.take_along_axis(np.where(np.isnan(flat), 0.0, of_score), order, -1)
    ends = np.cumsum(weight, axis=-1)
    taken = np.clip(np.minimum(ends, 0.75) - np.maximum(ends - weight, 0.25), 0, None)
    return np.asarray((taken * np.nan_to_num(rising)).sum(-1) / taken.sum(-1))


def _middle(rising: Array, count: int) -> Array:
    """Return the mean of the first `count` of ordered scores [..., N M] without a quarter at each end."""
    return np.asarray(rising[..., count // 4 : count - count // 4].mean(-1))


def profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Return the share of runs above each threshold (strictly), mean over tasks: [..., N, M], [T] -> [..., T]."""
    x, taus = as_scores(scores), np.asarray(thresholds, float)
    above = np.where(np.isnan(x)[..., None], np.nan, x[..., None] > taus)  # [..., N, M, T]
    return mean(np.moveaxis(above, -1, 0)).transpose(*range(1, x.ndim - 1), 0)


def improvement(x: ArrayLike, y: ArrayLike) -> Array:
    """Return P(X > Y) with ties counted half, averaged over tasks: [..., N, M], [..., K, M] -> [...].

    Every run of one side meets every run of the other, whatever their seeds.
    """
    a, b = as_scores(x)[..., :, None, :], as_scores(y)[..., None, :, :]  # [..., N, 1, M], [..., 1, K, M]
    wins = np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b) + 0.5 * (a == b))
    return mean(wins.reshape(*wins.shape[:-3], -1, wins.shape[-1]))


def as_scores(scores: ArrayLike) -> Array:
    """Return scores as an array of at least two axes. Raises ValueError for fewer."""
    x = np.asarray(scores, float)
    if x.ndim < 2:
        raise ValueError(f"scores must be runs × tasks, got shape {x.shape}")
    return x


def counts(scores: ArrayLike) -> NDArray[np.int64]:
    """Return how many runs each task has, [N, M] -> [M]."""
    return np.asarray((~np.isnan(as_scores(scores))).sum(0), np.int64)


def task_means(scores: ArrayLike) -> Array:
    """Return each task's mean, [..., N, M] -> [..., M]; NaN for a task without runs."""
    x = as_scores(scores)
    present = ~np.isnan(x)
    if present.all() and x.shape[-2]:
        return np.asarray(x.mean(-2))
    runs = present.sum(-2)
    return np.where(runs > 0, np.where(present, x, 0.0).sum(-2) / np.maximum(runs, 1), np.nan)
