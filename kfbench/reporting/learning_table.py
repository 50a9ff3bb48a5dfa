"""The table of how runs learn, against the baseline: from where, how fast, how far; by their validation curves.

A run's time is the part of its own budget that has passed, its score the accuracy or the human-normalised return, both
in hundredths, of the student alone. See `transfer_metrics` for the definitions and their sources.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kfbench.reporting import intervals, pairs, transfer_metrics
from kfbench.reporting.grid import Grid
from kfbench.reporting.render import Shown, Table, count, interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """The validation curves of a cell's runs, one row a seed of the study; NaN where there is none."""

    times: Array  # [T], 0..1
    scores: Array  # [N, T], in hundredths
    keys: tuple[str, ...]


def learning(grid: Grid) -> Table:
    """Return jumpstart, gain at the end, transfer score and time to the baseline's end, over the columns of both."""
    base = grid.study.baseline
    head = (
        "columns",
        f"first look: over {base}",
        f"last look: over {base}",
        f"area ÷ {base}'s",
        f"budget until {base}'s end",
    )
    caption = (
        "From validation curves of the student as it would be kept, in hundredths of the normalised score (points of "
        "accuracy). "
        "First look (jumpstart; in games before the first step, where students that begin alike are level) and last "
        "look (asymptotic gain): the difference of runs that share a seed, with the wider of the bootstrap's and "
        "Student's 95 % intervals. Area: mean area under the curve over that of "
        f"{base} (the transfer score of progressive networks), of columns where the 95 % interval of {base}'s lies "
        "above zero, as a ratio over what may be nothing says nothing. Budget: the part of its own budget until a run "
        f"first reaches the mean last score of {base}, the mean up to 1 (Kaplan-Meier; runs that never do are "
        "censored), and how many runs do. Means over the columns that both have run."
    )
    return Table("learning", "How they learn", caption, head, tuple((row, _row(grid, row)) for row in grid.rows))


def curves(grid: Grid, row: str, column: str) -> Curves | None:
    """Return a cell's curves, None if no run of it has one of at least two normalised scores."""
    times, raw = grid.curve(row, column, grid.curve_metric(column))
    scores = 100 * grid.normal(column, raw)
    if len(times) < 2 or np.isnan(scores).all():
        return None
    return Curves(times, scores, tuple(record.key for record in grid.cells[row, column].done))


def _row(grid: Grid, row: str) -> tuple[Shown, ...]:
    base, of_columns = grid.study.baseline, {}
    for column in grid.columns:
        ours, theirs = curves(grid, row, column), curves(grid, base, column)
        if ours is not None and theirs is not None:
            of_columns[column] = (ours, theirs)
    both = list(of_columns.values())
    number: dict[str, float | int | str] = {"value": len(both)}
    notes = filter(None, (grid.lack(row, list(of_columns)), grid.unscaled(grid.columns)))
    columns = Shown(f"{len(both)} of {len(grid.columns)}", note="; ".join(notes), values=number)
    if not both:
        return (columns, *(Shown("–"),) * 4)
    keys = tuple(key for ours, _ in both for key in ours.keys)
    reached = _reached(both, keys)
    if row == base:
        return (columns, *(Shown("·"),) * 3, reached)
    gaps = [
        pairs.difference(
            *(np.stack([side.scores[:, look] for side in sides], axis=1) for sides in zip(*both, strict=True))
        )
        for look in (0, -1)
    ]
    shown = [interval(gap.interval, keys, sign="+", digits=1) for gap in gaps]
    return (columns, *shown, _area(base, both, keys), reached)


def _area(base: str, both: list[tuple[Curves, Curves]], keys: tuple[str, ...]) -> Shown:
    """Return the mean ratio of areas, over the columns on which the baseline's is clearly above zero."""
    clear = [(ours, theirs) for ours, theirs in both if _is_above_zero(theirs)]
    unclear = f"{count(len(both) - len(clear), 'column')} on which {base}'s area is not clearly above zero"
    note = "" if len(clear) == len(both) else f"without {unclear}"
    if not clear:
        return Shown("–", note=note)
    ratio = float(np.mean([transfer_metrics.area_ratio(o.times, o.scores, t.scores, t.times) for o, t in clear]))
    return Shown(f"{ratio:.2f}", note=note, values={"value": ratio}, keys=keys)


def _is_above_zero(theirs: Curves) -> bool:
    return intervals.mean(transfer_metrics.area(theirs.times, theirs.scores)[:, None]).low > 0


def _reached(both: list[tuple[Curves, Curves]], keys: tuple[str, ...]) -> Shown:
    """Return the mean part of the budget until the baseline's mean last score, and how many runs get there."""
    means, arrived, runs = [], 0, 0
    for ours, theirs in both:
        times, observed = transfer_metrics.time_to_threshold(
            ours.times, ours.scores, float(np.nanmean(theirs.scores[:, -1]))
        )
        there = ~np.isnan(times)
        means.append(transfer_metrics.restricted_mean(times[there], observed[there], 1.0))
        arrived, runs = arrived + int(observed[there].sum()), runs + int(there.sum())
    mean = float(np.mean(means))
    numbers: dict[str, float | int | str] = {"value": mean, "reached": arrived, "runs": runs}
    return Shown(f"{mean:.2f} ({arrived} of {runs})", values=numbers, keys=keys)
