"""Plots of curves: learning, with teachers and alone, and the shares that Knowledge Flow learns."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kfbench.report import intervals, style
from kfbench.report.grid import Array, Grid


@dataclass(frozen=True)
class Plot:
    """A figure with its file's name and what it shows."""

    name: str
    title: str
    caption: str
    figure: Figure


Drawn = tuple[str, str, Figure] | None  # title, caption, figure
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


def _scale(grid: Grid, column: str) -> tuple[float, str]:
    """Return what progress 1 is on the time axis, and the axis's name: epochs, or million frames."""
    for (_, label), cell in grid.cells.items():
        if label == column and cell.planned.spec is not None:
            recipe = cell.planned.spec.to_json()["recipe"]
            return (recipe["frames"] / 1e6, "million frames") if "frames" in recipe else (recipe["epochs"], "epoch")
    return 1.0, "progress"


def draw_line(axis: Axes, x: Array, values: Array, label: str, index: int, *, dash: str | None = None) -> None:
    """Draw the mean of values [N runs, T] over x [T], and Student's pointwise interval as a band."""
    mean, low, high = band(values)
    dashes = style.dash(index) if dash is None else dash
    axis.plot(x, mean, dashes, color=style.colour(index), label=label)
    if len(values) > 1:
        axis.fill_between(x, low, high, color=style.colour(index), alpha=0.15, linewidth=0)


def _axis_name(grid: Grid, column: str) -> str:
    return "return" if grid.is_game(column) else "validation error, %"


def curves(grid: Grid) -> Drawn:
    """Learning curves of every row, a panel a column."""
    metrics = {column: grid.curve_metric(column) for column in grid.columns}
    ready = [c for c in grid.columns if any(curve(grid, row, c, metrics[c])[1].size for row in grid.rows)]
    if not ready:
        return None
    figure, axes = style.panels(len(ready))
    for column, axis in zip(ready, axes, strict=True):
        whole, name = _scale(grid, column)
        for index, row in enumerate(grid.rows):
            times, values = curve(grid, row, column, metrics[column])
            if values.size:
                draw_line(axis, times * whole, values, row, index)
        axis.set(title=column, xlabel=name, ylabel=_axis_name(grid, column))
    style.legend(figure, axes)
    caption = "The student alone, on validation data; mean over seeds with Student's pointwise 95 % interval."
    return "Learning curves", caption, figure


def attached(grid: Grid) -> Drawn:
    """The same student with its teachers and alone, while both exist."""
    pairs = [
        (row, column) for row in grid.rows for column in grid.columns if curve(grid, row, column, ATTACHED)[1].size
    ]
    if not pairs:
        return None
    figure, axes = style.panels(len(pairs))
    for (row, column), axis in zip(pairs, axes, strict=True):
        whole, name = _scale(grid, column)
        alone = ATTACHED.removesuffix("_attached")
        for index, (metric, label) in enumerate([(ATTACHED, "with teachers"), (alone, "alone")]):
            times, values = curve(grid, row, column, metric)
            draw_line(axis, times * whole, values, label, 1 - index, dash="--" if index == 0 else "-")
        axis.set(title=f"{row}\n{column}", xlabel=name, ylabel=_axis_name(grid, column))
    style.legend(figure, axes)
    caption = (
        "What the teachers still give: the score of the student with its teachers attached (dashed, until they are cut "
        "off) and of the student alone at the same moment. The gap at the cut is what the student loses there."
    )
    return "With teachers and alone", caption, figure


def shares(grid: Grid) -> list[Plot]:
    """Shares of student and teachers per layer over training, a figure for each row that mixes (figure 1c)."""
    made = []
    for number, row in enumerate(grid.rows):
        ready = {column: names for column in grid.columns if (names := _layers(grid, row, column))}
        if not ready:
            continue
        across = 1 + max(min(len(names), 4) for names in ready.values())
        everyone = ["student"]  # one colour each, whatever the panel
        for column in ready:
            everyone += [name for name in _sharers(grid, row, column) if name not in everyone]
        figure, axes = style.panels(across * len(ready), width=10.2 / across, height=2.2, most=across)
        for line, (column, names) in enumerate(ready.items()):
            shown = [names[n] for n in np.linspace(0, len(names) - 1, min(len(names), 4)).round().astype(int)]
            for place in range(across):
                axis = axes[line * across + place]
                if place > len(shown):
                    axis.set_visible(False)
                    continue
                _stack(axis, grid, row, column, names if place == 0 else [shown[place - 1]], everyone)
                axis.set_title("mean of layers" if place == 0 else shown[place - 1])
                axis.set_ylabel(f"{column}\nshare" if place == 0 else "")
        style.legend(figure, axes)
        caption = (
            f"{row}: how much of each mixed layer is the student's own and how much comes from each teacher, mean over "
            "seeds; first the mean over all layers, then single layers from the lowest to the highest."
        )
        made.append(Plot(f"shares-{number}", f"Shares of {row}", caption, figure))
    return made


def _layers(grid: Grid, row: str, column: str) -> list[str]:
    """Names of the mixed layers, in the order in which the curve has them."""
    parts = [key.split("/", 2) for key in _keys(grid, row, column)]
    return list(dict.fromkeys(part[1] for part in parts if part[0] == "share" and len(part) == 3))


def _keys(grid: Grid, row: str, column: str) -> list[str]:
    """Every name that the curves of a cell state, in order of appearance."""
    cell = grid.cells.get((row, column))
    return list(dict.fromkeys(key for record in (cell.done if cell else []) for point in record.curve for key in point))


def _sharers(grid: Grid, row: str, column: str, layers: list[str] | None = None) -> list[str]:
    """The student and the teachers that share the layers."""
    parts = [key.split("/", 2) for key in _keys(grid, row, column)]
    shares = [part for part in parts if part[0] == "share" and len(part) == 3]
    names = list(dict.fromkeys(part[2] for part in shares if layers is None or part[1] in layers))
    return sorted(names, key=lambda name: name != "student")


def _stack(axis: Axes, grid: Grid, row: str, column: str, layers: list[str], everyone: list[str]) -> None:
    """Stack mean shares: the student below, its teachers above it."""
    names = _sharers(grid, row, column, layers)
    bottom: Array | None = None
    whole, unit = _scale(grid, column)
    for name in names:
        index = everyone.index(name)
        found = [curve(grid, row, column, f"share/{layer}/{name}") for layer in layers]
        found = [(times, values) for times, values in found if values.size]
        times = found[0][0]
        parts = [np.nanmean(values, axis=0) for _, values in found if len(values[0]) == len(times)]
        mean = np.sum(parts, axis=0) / len(layers)  # a teacher has no share of a layer it is not linked to
        bottom = np.zeros_like(mean) if bottom is None else bottom
        teacher = name.partition("@")[0]  # its budget would make the legend too long
        axis.fill_between(
            times * whole, bottom, bottom + mean, color=style.colour(index), alpha=0.85, linewidth=0, label=teacher
        )
        bottom = bottom + mean
    axis.set(ylim=(0, 1), xlim=(0, whole), xlabel=unit)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
