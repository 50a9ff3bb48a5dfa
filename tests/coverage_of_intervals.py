"""How often the report's intervals hold the true value: simulated studies whose truth is known.

`python tests/coverage_of_intervals.py` prints the table of docs/statistics.md; the tests run parts of it with fewer.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import kendalltau

from kfbench.reporting import bootstrap, intervals, pairs, stats

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
        low, high = intervals.wilson(stats.mean(above), intervals.worth(above))
        return (float(low), float(high)), float(np.mean(chances))

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


def of_kendall(teachers: int, tau: float, studies: int, *, heavy: bool = False) -> float:
    """Coverage of the interval of Kendall's tau between two normal values of each teacher, or two with heavy tails."""
    rho = np.sin(np.pi * tau / 2)

    def study(rng: np.random.Generator) -> tuple[Ends, float]:
        x, noise = rng.normal(size=(2, teachers))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        tails = np.sqrt(3 / rng.chisquare(3, teachers)) if heavy else 1.0  # Student's t of 3 degrees, both at once
        return intervals.kendall(float(kendalltau(x * tails, y * tails).statistic), teachers)[1:], tau

    return share(studies, study)


def kendall_table(studies: int = 2000) -> str:
    """Return the Markdown table of the coverage of Kendall's tau: in %, with 5, 8 and 15 teachers."""
    lines = ["| true τ | 5, 8, 15 teachers | heavy tails |", "|---|---:|---:|"]
    for tau in (0.0, 0.3, 0.6, 0.8, 0.9):
        cells = [
            ", ".join(f"{100 * of_kendall(n, tau, studies, heavy=heavy):.0f}" for n in (5, 8, 15))
            for heavy in (False, True)
        ]
        lines.append(f"| {tau} | {' | '.join(cells)} |")
    return "\n".join(lines)


Measure = Callable[[int, int], float]  # runs, studies -> share that held


def rows() -> list[tuple[str, str, Measure, Measure | None]]:
    """Return estimate, truth, coverage of the report's interval and of the percentile bootstrap's, for each line."""
    lines: list[tuple[str, str, Measure, Measure | None]] = []
    for chances in [(chance,) * tasks for chance in (0.5, 0.9, 0.99) for tasks in (1, 4)] + [(0.99, 0.9, 0.7, 0.5)]:
        ours, theirs = partial(_swap, of_improvement, chances), partial(_swap, of_resampled_improvement, chances)
        lines.append((f"probability of improvement, {_tasks(len(chances))}", _chances(chances), ours, theirs))
    for told, kind in (
        ("seeds share half the variance", {"shared": 0.5}),
        ("one side spreads 4 times", {"ratio": 4.0}),
    ):
        for chance in (0.5, 0.9, 0.99):
            ours = partial(_swap, of_improvement, (chance,), **kind)
            lines.append((f"the same, 1 task, {told}", f"{chance}", ours, None))
    for chances in ((0.5,), (0.9,), (0.99,), (0.9,) * 4, (0.98,) * 4, (0.99, 0.9, 0.5, 0.1)):
        ours, theirs = partial(_swap, of_profile, chances), partial(_swap, of_profile, chances, resampled=True)
        lines.append((f"profile at one score, {_tasks(len(chances))}", _chances(chances), ours, theirs))
    for name, measure in (("mean", of_mean), ("IQM", of_iqm), ("paired difference", of_difference)):
        plain = of_mean if measure is of_difference else measure
        for kind in ("normal", "skewed"):
            for tasks in (1, 4):
                ours = partial(_swap, measure, tasks, kind=kind)
                theirs = partial(_swap, plain, tasks, kind=kind, resampled=True)
                lines.append((f"{name}, {_tasks(tasks)}", f"{kind} scores", ours, theirs))
    return lines


def _swap(measure: Callable[..., float], case: object, runs: int, studies: int, **kind: object) -> float:
    return measure(runs, case, studies, **kind)


def table(studies: int = 2000) -> str:
    """Return the Markdown table of docs/statistics.md: coverage in %."""
    lines = ["| estimate | truth | 3, 5, 10 runs | percentile bootstrap |", "|---|---|---:|---:|"]
    for estimate, truth, *measures in rows():
        cells = [", ".join(f"{100 * of(n, studies):.0f}" for n in RUNS) if of else "" for of in measures]
        lines.append(f"| {estimate} | {truth} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _chances(chances: tuple[float, ...]) -> str:
    return f"{chances[0]}" if len(set(chances)) == 1 else ", ".join(map(str, chances))


def _tasks(count: int) -> str:
    return f"{count} task{'s' if count > 1 else ''}"


if __name__ == "__main__":
    print(table())
    print()
    print(kendall_table())
