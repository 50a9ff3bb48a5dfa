"""How often the report's intervals hold the true value: simulated studies whose truth is known.

`python tests/coverage_of_intervals.py` prints the table of docs/statistics.md; the tests run parts of it with fewer.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from kfbench.report import bootstrap, intervals, pairs, stats

DOCS = Path(__file__).parents[1] / "docs" / "statistics.md"
RUNS = (3, 5, 10)
Ends = tuple[float, float]


def share(studies: int, study: Callable[[np.random.Generator], tuple[Ends, float]], seed: int = 0) -> float:
    """Return in what share of simulated studies the interval holds the truth: `study` gives both."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(studies):
        (low, high), truth = study(rng)
        held += low <= truth <= high
    return held / studies


def scores(rng: np.random.Generator, runs: int, tasks: int, kind: str = "normal") -> np.ndarray:
    """Draw scores [runs, tasks] with mean 0, and with means from 0 to 2 over tasks."""
    noise = rng.normal(size=(runs, tasks))
    if kind == "skewed":
        noise = -np.log(ndtr(-noise)) - 1  # exponential
    return noise + np.linspace(0, 2, tasks)[None] if tasks > 1 else noise


def both_sides(
    rng: np.random.Generator, runs: int, chances: tuple[float, ...], *, shared: float = 0.0, ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw normal scores [runs, tasks] of two methods with P(X > Y) as given; seeds share a part of their variance.

    X's standard deviation is `ratio` times Y's.
    """
    luck, own, other = rng.normal(size=(3, runs, len(chances)))
    y = np.sqrt(shared) * luck + np.sqrt(1 - shared) * own
    x = np.sqrt(shared) * luck + np.sqrt(1 - shared) * other
    return ratio * x + np.sqrt(1 + ratio**2) * ndtri(np.array(chances)), y


def of_improvement(runs: int, chances: tuple[float, ...], studies: int, **kind: float) -> float:
    """Coverage of the probability of improvement."""

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        return intervals.improvement(*both_sides(rng, runs, chances, **kind))[1:], float(np.mean(chances))

    return share(studies, study)


def of_resampled_improvement(runs: int, chances: tuple[float, ...], studies: int) -> float:
    """Coverage of the percentile bootstrap of the same, each side resampled by itself, as rliable does."""

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        sides = both_sides(rng, runs, chances)
        x, y = (np.concatenate(list(bootstrap.resamples(side, repeats=400, rng=rng))) for side in sides)
        low, high = np.quantile(stats.improvement(x, y), [0.025, 0.975])
        return (low, high), float(np.mean(chances))

    return share(studies, study)


def of_profile(runs: int, chances: tuple[float, ...], studies: int, *, resampled: bool = False) -> float:
    """Coverage of one point of a profile, with a share above it for each task; or that of the percentile bootstrap."""

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        above = (rng.random((runs, len(chances))) < np.array(chances)).astype(float)
        if resampled:
            return bootstrap.percentiles(stats.mean, above, repeats=400, seed=1), float(np.mean(chances))
        _, low, high = intervals.profile(above, [0.5])
        return (low[0], high[0]), float(np.mean(chances))

    return share(studies, study)


def of_mean(runs: int, tasks: int, studies: int, kind: str = "normal", *, resampled: bool = False) -> float:
    """Coverage of a mean's interval; or that of the percentile bootstrap."""
    truth = 1.0 if tasks > 1 else 0.0

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        x = scores(rng, runs, tasks, kind)
        if resampled:
            return bootstrap.percentiles(stats.mean, x, repeats=400, seed=1), truth
        return intervals.mean(x)[1:], truth

    return share(studies, study)


def of_iqm(runs: int, tasks: int, studies: int, kind: str = "normal", *, resampled: bool = False) -> float:
    """Coverage of the interquartile mean's interval, of its value for many runs; or of the percentile bootstrap."""
    truth = float(stats.iqm(scores(np.random.default_rng(99), 200_000, tasks, kind)))

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        x = scores(rng, runs, tasks, kind)
        if resampled:
            return bootstrap.percentiles(stats.iqm, x, repeats=400, seed=1), truth
        return intervals.iqm(x, repeats=400)[1:], truth

    return share(studies, study)


def of_difference(runs: int, tasks: int, studies: int, kind: str = "normal") -> float:
    """Coverage of the paired difference."""
    truth = 1.0 if tasks > 1 else 0.0

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        x = scores(rng, runs, tasks, kind)
        gap = pairs.difference(x, np.zeros_like(x), repeats=400)
        return (gap.low, gap.high), truth

    return share(studies, study)


def table(studies: int = 2000) -> str:
    """Return the Markdown table of docs/statistics.md: coverage in %, and that of the percentile bootstrap."""
    lines = [
        "| estimate | truth | interval: 3, 5, 10 runs | percentile bootstrap: 3, 5, 10 runs |",
        "|---|---|---|---|",
    ]

    def add(estimate: str, truth: str, ours: Callable[[int], float], theirs: Callable[[int], float] | None) -> None:
        cells = [", ".join(f"{100 * f(n):.0f}" for n in RUNS) if f else "" for f in (ours, theirs)]
        lines.append(f"| {estimate} | {truth} | {cells[0]} | {cells[1]} |")

    for chance in (0.5, 0.7, 0.9, 0.95, 0.99):
        for tasks in (1, 4):
            add(
                f"probability of improvement, {_tasks(tasks)}",
                f"{chance}",
                lambda n, c=(chance,) * tasks: of_improvement(n, c, studies),
                lambda n, c=(chance,) * tasks: of_resampled_improvement(n, c, studies // 4),
            )
    mixed = (0.99, 0.9, 0.7, 0.5)
    add(
        "probability of improvement, 4 tasks",
        "0.99, 0.9, 0.7, 0.5",
        lambda n: of_improvement(n, mixed, studies),
        lambda n: of_resampled_improvement(n, mixed, studies // 4),
    )
    for told, kind in (
        ("seeds share half of the variance", {"shared": 0.5}),
        ("one side spreads 4 times", {"ratio": 4.0}),
    ):
        for chance in (0.5, 0.9, 0.99):
            add(
                f"probability of improvement, 1 task, {told}",
                f"{chance}",
                lambda n, c=chance, k=kind: of_improvement(n, (c,), studies, **k),
                None,
            )
    for chances in ((0.5,), (0.9,), (0.99,), (0.9,) * 4, (0.98,) * 4, (0.99, 0.9, 0.5, 0.1)):
        told = f"{chances[0]}" if len(set(chances)) == 1 else ", ".join(map(str, chances))
        add(
            f"profile at one score, {_tasks(len(chances))}",
            told,
            lambda n, c=chances: of_profile(n, c, studies),
            lambda n, c=chances: of_profile(n, c, studies // 4, resampled=True),
        )
    for name, measure in (("mean", of_mean), ("IQM", of_iqm)):
        for kind in ("normal", "skewed"):
            for tasks in (1, 4):
                add(
                    f"{name}, {_tasks(tasks)}",
                    f"{kind} scores",
                    lambda n, m=measure, t=tasks, k=kind: m(n, t, studies, k),
                    lambda n, m=measure, t=tasks, k=kind: m(n, t, studies // 2, k, resampled=True),
                )
    for kind in ("normal", "skewed"):
        for tasks in (1, 4):
            add(
                f"paired difference, {_tasks(tasks)}",
                f"{kind} differences",
                lambda n, t=tasks, k=kind: of_difference(n, t, studies, k),
                lambda n, t=tasks, k=kind: of_mean(n, t, studies // 2, k, resampled=True),
            )
    return "\n".join(lines)


def _tasks(count: int) -> str:
    return f"{count} task{'s' if count > 1 else ''}"


if __name__ == "__main__":
    print(table())
