"""Plots of curves over training: every row's learning, and the student with its teachers and alone."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kfbench.reporting import intervals, stats, style
from kfbench.reporting.grid import Array, Grid


@dataclass(frozen=True)
class Plot:
    """A figure with its file's name and what it shows."""

    name: str
    title: str
    caption: str
    figure: Figure


Drawn = tuple[str, str, Figure] | None  # title, caption, figure
MOST = 12  # lines that can be told from each other in one panel
ATTACHED = "val_error_attached"  # games are evaluated alone only


def curve(grid: Grid, row: str, column: str, metric: str) -> tuple[Array, Array]:
    """Return progress [T] and a metric of the curves [N runs that state it, T]; NaN where a run does not."""
    times, values = grid.curve(row, column, metric)
    return times, values[~np.isnan(values).all(1)]


def band(values: Array) -> tuple[Array, Array, Array]:
    """Return the mean over runs [N, T] and the ends of Student's pointwise 95 % interval, each [T]; NaN: none."""
    at = [intervals.mean(values[:, [t]]) for t in range(values.shape[1])]
    mean, low, high = np.array(at).T
    return mean, low, high


def scale(grid: Grid, row: str, column: str) -> tuple[float, str]:
    """Return what progress 1 of a row is on the time axis, and the axis's name: epochs, or million frames.

    Rows of a column may be trained for different lengths.
    """
    cell = grid.cells.get((row, column))
    if cell is None or cell.planned.spec is None:
        return 1.0, "progress"
    return grid.kind(column).duration(cell.planned.spec.to_json()["recipe"])


def foremost(grid: Grid) -> list[str]:
    """Return the rows that get colours: all; of many the baseline, those that claims name, and the best."""
    if len(grid.rows) <= MOST:
        return grid.rows
    claimed = [row for claim in grid.study.claims for row in (claim.better, claim.than, claim.row) if row is not None]
    scores = {row: grid.overall(row) for row in grid.rows}
    ranked = sorted(
        (row for row in grid.rows if not np.isnan(scores[row]).all()), key=lambda row: -float(stats.mean(scores[row]))
    )
    chosen = list(dict.fromkeys([grid.study.baseline, *claimed, *ranked]))[:MOST]
    return [row for row in grid.rows if row in chosen]


def draw_line(axis: Axes, x: Array, values: Array, label: str, index: int, *, dash: str | None = None) -> None:
    """Draw the mean of runs [N, T] over x [T] with its band; a single point has a marker, as it makes no line."""
    mean, low, high = band(values)
    dashes = style.dash(index) if dash is None else dash
    marker = style.marker(index) if len(x) == 1 else ""
    axis.plot(x, mean, dashes + marker, color=style.colour(index), label=label)
    if len(values) > 1:
        axis.fill_between(x, low, high, color=style.colour(index), alpha=0.15, linewidth=0)


def frame(axis: Axes, *, is_percent: bool) -> None:
    """Fit the axis to its lines with some room: the band of a few runs can be several times as high, or past 100 %."""
    if not axis.lines:
        return
    low, high = axis.get_ylim()
    lines = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
    bottom, top = np.nanmin(lines), np.nanmax(lines)
    room = 0.3 * (top - bottom) or 1.0
    lowest, highest = (0.0, 103.0) if is_percent else (-np.inf, np.inf)
    axis.set_ylim(max(low, bottom - room, lowest), min(high, top + room, highest))


def _axis_name(grid: Grid, column: str) -> str:
    return f"validation {grid.kind(column).scored}"


def curves(grid: Grid) -> Drawn:
    """Learning curves of every row, a panel a column."""
    metrics = {column: grid.curve_metric(column) for column in grid.columns}
    ready = [c for c in grid.columns if any(curve(grid, row, c, metrics[c])[1].size for row in grid.rows)]
    if not ready:
        return None
    coloured = foremost(grid)
    figure, axes = style.panels(len(ready), width=6.9 if len(ready) == 1 and len(grid.rows) > 8 else 3.4)
    lengths = set()
    for column, axis in zip(ready, axes, strict=True):
        for row in grid.rows:
            times, values = curve(grid, row, column, metrics[column])
            if not values.size:
                continue
            whole, name = scale(grid, row, column)
            lengths.add((column, whole))
            axis.set_xlabel(name)
            if row in coloured:
                draw_line(axis, times * whole, values, row, coloured.index(row))
            else:
                form = "." if len(times) == 1 else "-"
                axis.plot(times * whole, band(values)[0], form, color=style.INK, lw=0.7, alpha=0.3, label="others")
        axis.set(title=column, ylabel=_axis_name(grid, column))
        frame(axis, is_percent=grid.kind(column).is_percent)
    style.legend(figure, axes)
    caption = (
        "The student as it would be kept, on validation data; mean over seeds with Student's pointwise 95 % interval."
    )
    if len(lengths) > len(ready):
        caption += " Each is drawn over its own training: some rows are trained for longer than others."
    if len(coloured) < len(grid.rows):
        caption += f" In colour: {grid.study.baseline}, what the claims name, and the best; the others are thin lines."
    return "Learning curves", caption, figure


def attached(grid: Grid) -> Drawn:
    """The same student with its teachers and alone, while both exist."""
    pairs = [
        (row, column) for row in grid.rows for column in grid.columns if curve(grid, row, column, ATTACHED)[1].size
    ]
    if not pairs:
        return None
    figure, axes = style.panels(len(pairs))
    names = style.short(grid.rows)
    for (row, column), axis in zip(pairs, axes, strict=True):
        whole, name = scale(grid, row, column)
        alone = ATTACHED.removesuffix("_attached")
        for index, (metric, label) in enumerate([(ATTACHED, "with teachers"), (alone, "alone")]):
            times, values = curve(grid, row, column, metric)
            draw_line(axis, times * whole, values, label, 1 - index, dash="--" if index == 0 else "-")
        axis.set(title=f"{names[row]}\n{column}", xlabel=name, ylabel=_axis_name(grid, column))
        frame(axis, is_percent=grid.kind(column).is_percent)
    style.legend(figure, axes)
    caption = (
        "What the teachers still give: the score of the student with its teachers attached (dashed, until they are cut "
        "off) and of the student alone at the same moment. The gap at the cut is what the student loses there."
    )
    return "With teachers and alone", caption, figure
