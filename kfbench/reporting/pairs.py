"""The difference of runs that share a seed, with its interval and how many seeds would make it clear."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kfbench.reporting import stats
from kfbench.reporting.bootstrap import percentiles
from kfbench.reporting.intervals import Interval, freedom, spread, student
from kfbench.reporting.stats import Array


class Difference(NamedTuple):
    """The mean of x - y over pairs that share a seed, with the wider of Student's and the bootstrap interval."""

    value: float
    low: float
    high: float
    pairs: int
    effect: float  # mean over standard deviation of the pairs (Cohen's d_z); NaN if there is no spread
    # further seeds until the interval is expected to exclude zero; None: over a thousand, or unknown
    more_seeds: int | None
    is_constant: bool = (
        False  # two pairs or more in every task, and no pair differs from another: they tell no interval
    )

    @property
    def is_clear(self) -> bool:
        """Say whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    @property
    def is_equal(self) -> bool:
        """Say whether every pair, of two or more, is equal."""
        return self.is_constant and self.value == 0

    @property
    def mark(self) -> str:
        """▲ or ▼: clearly above or below zero; else nothing."""
        return "" if not self.is_clear else "▲" if self.value > 0 else "▼"

    @property
    def interval(self) -> Interval:
        """Its value and ends alone."""
        return Interval(self.value, self.low, self.high)


def difference(x: ArrayLike, y: ArrayLike, *, repeats: int = 10_000) -> Difference:
    """Return the mean difference x - y of runs that share a seed, [N, M] each: row n of both is the same seed.

    Pairs with a missing side drop out. The mean is over tasks of the mean over pairs; pairs are resampled within each
    task. Percentile intervals of a handful of pairs are too short (three of three have one sign by luck in a quarter of
    all cases), so the interval is the wider, at each end, of the bootstrap's and Student's (Welch-Satterthwaite over
    tasks). With fewer than two pairs in any task that has some, or if all pairs differ by the same, it is NaN.
    """
    gaps = stats.as_scores(x) - stats.as_scores(y)
    gaps = gaps[:, stats.counts(gaps) > 0]
    total = int(stats.counts(gaps).sum())
    if total == 0:
        return Difference(np.nan, np.nan, np.nan, 0, np.nan, None)
    of = spread(gaps)
    if np.isnan(of.error):
        is_constant = bool(of.runs.min() > 1)
        return Difference(of.value, np.nan, np.nan, total, np.nan, None, is_constant)
    drawn = percentiles(stats.mean, gaps, repeats=repeats)
    low, high = min(of.value - of.reach, drawn[0]), max(of.value + of.reach, drawn[1])
    more = _more_seeds(of.value, of.variances, of.runs) if low <= 0 <= high else 0
    return Difference(of.value, low, high, total, of.value / float(np.sqrt(of.variances.mean())), more)


def _more_seeds(value: float, variances: Array, runs: NDArray[np.int64]) -> int | None:
    """Return the fewest further seeds with which Student's interval would exclude zero, if mean and spread stay."""
    for more in range(1, 1001):
        grown = runs + more
        error = np.sqrt((variances / grown).sum()) / len(runs)
        if abs(value) > student(freedom(variances, grown)) * error:
            return more
    return None
