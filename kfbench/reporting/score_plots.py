"""Plots of the test score over something else: number of labels, training time, size."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike

from kfbench.reporting import intervals, stats, style
from kfbench.reporting.cost_table import short, timed
from kfbench.reporting.curve_plots import Drawn
from kfbench.reporting.grid import Grid
from kfbench.reporting.render import listed
from kfbench.studies.definition import Column


def labels(grid: Grid) -> Drawn:
    """Score against the number of training images, for tasks that appear with several and the same teachers."""
    found: dict[tuple[str, str], list[tuple[int, Column]]] = {}
    whole = set()  # sizes that are all images of a task
    for column in grid.study.tasks:
        if column.train_size is not None and any(_scored(grid, row, column.label) for row in grid.rows):
            name = column.task + (f", {column.network}" if column.network else "")
            size = _all_images(grid, column.label) if column.train_size == "all" else column.train_size
            whole |= {size} if column.train_size == "all" else set()
            found.setdefault((name, json.dumps(column.teachers)), []).append((size, column))
    groups, others = list[tuple[str, list[tuple[int, str]]]](), list[str]()
    for (name, _), sized in found.items():
        for recipe, part in _lines(sized).items():
            if len(part) > 1:
                groups.append((name + recipe, sorted((size, column.label) for size, column in part)))
                keys = sorted({key for _, column in part for key in column.recipe} - {*others})
                others += [key for key in keys if len({json.dumps(c.recipe.get(key)) for _, c in part}) > 1]
    if not groups:
        return None
    has_lone = False
    figure, axes = style.panels(len(groups), width=4.8 if len(groups) == 1 else 3.4)
    for (name, sizes), axis in zip(groups, axes, strict=True):
        for index, row in enumerate(grid.rows):
            if not any(_scored(grid, row, column) for _, column in sizes):
                continue
            scores = [grid.scores(row, [column]) for _, column in sizes]
            middle, low, high = np.array([intervals.mean(of_size) for of_size in scores]).T  # NaN: the line breaks
            x = np.array([size for size, _ in sizes], float)
            x *= 1.035 ** (index - (len(grid.rows) - 1) / 2)  # side by side, so that no interval hides another
            look: dict[str, Any] = {"color": style.colour(index)}
            axis.plot(x, middle, style.dash(index) + style.marker(index), label=row, ms=4, **look)
            axis.vlines(x, low, high, linewidth=1.1, **look)
            lone = np.array([(~np.isnan(of_size)).sum() == 1 for of_size in scores])
            if lone.any():
                has_lone = True
                axis.plot(x[lone], middle[lone], style.marker(index), ms=4, markerfacecolor=style.PAPER, **look)
        ticks = [size for size, _ in sizes]
        axis.set(title=name, xlabel="training images", ylabel="test error, %", xscale="log")
        axis.set_xticks(ticks, ["all" if size in whole else f"{size:,}" for size in ticks])
        axis.minorticks_off()
    style.legend(figure, axes)
    caption = (
        "Test error of the student alone over the number of labelled training images (logarithmic); mean over seeds "
        "with Student's 95 % interval. Methods stand side by side at each number. Runs of one seed are compared in "
        "pairs under “Gain”, which decides more than these intervals do."
    )
    if has_lone:
        caption += " Hollow: a single run."
    if others:
        caption += f" The columns differ in {listed(others)} too, as their names or the study say."
    return "Label efficiency", caption, figure


def _lines(sized: list[tuple[int, Column]]) -> dict[str, list[tuple[int, Column]]]:
    """Return the columns that one line joins: all, or by their recipes where a number of images stands twice."""
    if len({size for size, _ in sized}) == len(sized):
        return {"": sized}
    lines: dict[str, list[tuple[int, Column]]] = {}
    for size, column in sized:
        told = "".join(f", {name} {value}" for name, value in sorted(column.recipe.items()))
        lines.setdefault(told, []).append((size, column))
    return lines


def _all_images(grid: Grid, column: str) -> int:
    """Return how many training images a task has, to the batch, as records tell it: the data may not be here."""
    record = next(record for row in grid.rows if (cell := grid.cells.get((row, column))) for record in cell.done)
    recipe = record.spec["recipe"]
    return int(record.cost["steps"] * recipe["batch_size"] / recipe["epochs"])


def _scored(grid: Grid, row: str, column: str) -> bool:
    return bool((~np.isnan(grid.scores(row, [column]))).any())


def cost(grid: Grid) -> Drawn:
    """Score against training time over the baseline's, the teachers' training as the hollow end of a line."""
    base = grid.study.baseline
    means = {
        (row, column): np.mean(pairs, axis=0)
        for row in grid.rows
        for column in grid.columns
        if (pairs := timed(grid, row, column))
    }
    if all(row == base for row, _ in means):
        return None
    known = {place: float(ours / theirs) for place, (ours, theirs) in means.items()}
    return _against(
        grid,
        lambda row, column: known.get((row, column), np.nan),
        lambda row, column: grid.cells[row, column].cost("teacher_seconds") / grid.cells[base, column].cost("seconds"),
        f"training time ÷ {style.short(grid.rows).get(base, base)}'s",
        "Score and training cost",
        f"Filled: the time of training the student over that of {base}, mean over the seeds that both ran with the "
        "same processor, device and number of threads; what has none is left out. Hollow: with the training of its "
        f"teachers, on whatever machine made them, over the mean of all of {base}'s runs. Wall time of machines that "
        "may be shared tells their load too: the table of costs has the range. The best corner is the lower left (for "
        "games the upper left).",
    )


def size(grid: Grid) -> Drawn:
    """Score against the parameters that are kept, where these differ."""
    counts = {cell.cost("parameters") for cell in grid.cells.values() if cell.done}
    counts = {count for count in counts if not np.isnan(count)}
    if not counts or max(counts) < 1.2 * min(counts):
        return None
    return _against(
        grid,
        lambda row, column: grid.cells[row, column].cost("parameters"),
        None,
        "parameters kept",
        "Score and size",
        "Test score of the network that is kept over its number of parameters.",
    )


def _against(
    grid: Grid,
    x: Callable[[str, str], float],
    extra: Callable[[str, str], float] | None,
    name: str,
    title: str,
    caption: str,
) -> Drawn:
    ready = [c for c in grid.columns if any(_scored(grid, row, c) and not np.isnan(x(row, c)) for row in grid.rows)]
    if not ready:
        return None
    figure, axes = style.panels(len(ready), width=6.9 if len(ready) == 1 and len(grid.rows) > 8 else 3.4)
    for column, axis in zip(ready, axes, strict=True):
        for index, row in enumerate(grid.rows):
            if not _scored(grid, row, column) or np.isnan(x(row, column)):
                continue
            place, score = x(row, column), float(stats.mean(grid.scores(row, [column])))
            more = extra(row, column) if extra else 0.0
            look: dict[str, Any] = {"color": style.colour(index), "markersize": 6}
            if more > 0:
                axis.plot([place, place + more], [score, score], ":", color=style.colour(index), linewidth=1.2)
                axis.plot(place + more, score, style.marker(index), **look, markerfacecolor="none")
            axis.plot(place, score, style.marker(index), **look, linestyle="none", label=row)
        axis.set(title=column, ylabel=f"test {grid.kind(column).scored}")
    _scale(figure, axes, name)
    style.legend(figure, axes)
    return title, caption, figure


def _scale(figure: Figure, axes: list[Axes], name: str) -> None:
    """Name and scale the x axes alike: logarithmic if what a panel shows spans more than a decade, else from zero."""
    spans = [axis.dataLim.intervalx for axis in axes]
    is_log = min(low for low, _ in spans) > 0 and any(high > 10 * low for low, high in spans)
    for axis in axes:
        axis.set_xlabel(style.folded(f"{name} (logarithmic)" if is_log else name, figure, axis))
        if is_log:
            axis.set_xscale("log")
            ticks = log_ticks(*axis.get_xlim())
            axis.set_xticks(ticks, [short(tick) for tick in ticks])
            axis.minorticks_off()
        else:
            axis.set_xlim(0, axis.get_xlim()[1])
            axis.xaxis.set_major_formatter(lambda value, _: short(value))


def log_ticks(low: float, high: float) -> list[float]:
    """Return the round numbers between two that a logarithmic axis names: at least three, and not more than fit."""
    if high > 1e5 * low:
        return _within(LogLocator(numticks=6).tick_values(low, high), low, high)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.floor(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,), (1, 1.5, 2, 3, 5, 7)):
        ticks = _within(np.outer(powers, steps).ravel(), low, high)
        if 3 <= len(ticks) <= 6:
            return ticks
    return _within(MaxNLocator(5).tick_values(low, high), low, high)


def _within(ticks: ArrayLike, low: float, high: float) -> list[float]:
    return [float(tick) for tick in np.asarray(ticks) if low <= tick <= high]
