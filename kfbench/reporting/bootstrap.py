"""The stratified bootstrap: runs drawn with replacement within each task. Vectorised and seeded.

The bootstrap of the IQM (5 runs × 26 tasks, 50,000 resamples) takes 0.05 s on one core, 130 times less than rliable
1.2. It does not serve alone for a handful of runs: see `intervals`.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from kfbench.reporting.stats import LEVEL, Array, as_scores, counts

Statistic = Callable[[Array], Array]  # [..., N, M] -> [...]
CHUNK = 60_000  # scores drawn at once: they fit in the processor's cache


def percentiles(
    statistic: Statistic, scores: ArrayLike, *, seed: int = 0, repeats: int = 50_000
) -> tuple[float, float]:
    """Return the ends between which a share LEVEL of the statistic's resampled values lies; NaN if one is NaN."""
    rng = np.random.default_rng(seed)
    draws = np.concatenate([statistic(chunk) for chunk in resamples(scores, repeats=repeats, rng=rng)])
    if np.isnan(draws).any():
        return np.nan, np.nan
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resamples(scores: ArrayLike, *, repeats: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield chunks [r, N, M] of stratified resamples: runs drawn with replacement within each task, of those there."""
    x = np.sort(as_scores(scores), axis=0)  # present scores first; the order of runs does not matter
    n, m = x.shape
    size = max(1, CHUNK // max(1, n * m))
    sizes = [min(size, repeats - start) for start in range(0, repeats, size)]
    yield from (_draw_groups if n and (counts(x) == n).all() else _draw_ragged)(x, sizes, rng)


def _draw_groups(x: Array, sizes: list[int], rng: np.random.Generator) -> Iterator[Array]:
    """Draw g rows of a task with one random number, from a table of all n^g: three times faster than one by one."""
    n, m = x.shape
    g = max((g for g in range(1, n + 1) if n**g <= 4096), default=1)
    rows = np.indices((n,) * g).reshape(g, -1)  # [g, n^g]
    table = np.ascontiguousarray(x[rows].transpose(2, 1, 0)).reshape(-1, g)  # [M * n^g, g]
    first = np.arange(m)[:, None] * n**g
    for size in sizes:
        codes = rng.integers(n**g, size=(size, m, -(-n // g)), dtype=np.uint32) + first
        yield table.take(codes, axis=0).reshape(size, m, -1)[..., :n].transpose(0, 2, 1)


def _draw_ragged(x: Array, sizes: list[int], rng: np.random.Generator) -> Iterator[Array]:
    """Draw from tasks with different numbers of runs; what a task lacks stays NaN."""
    runs = counts(x)
    absent = np.arange(len(x))[:, None] >= runs  # [N, M]
    for size in sizes:
        rows = (rng.random((size, *x.shape)) * np.maximum(runs, 1)).astype(np.intp)
        drawn = np.take_along_axis(x[None], rows, axis=1)
        drawn[:, absent] = np.nan
        yield drawn
