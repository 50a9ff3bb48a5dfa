"""The plots of a study, drawn from its grid of records: comparisons here, curves in `curve_plots`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.ticker import PercentFormatter

from kfbench.report import intervals, pairs, stats, style
from kfbench.report.curve_plots import Drawn, Plot, attached, curves, shares
from kfbench.report.grid import Grid
from kfbench.report.tables import short


def plots(grid: Grid) -> list[Plot]:
    """Draw all that have something to show. Must be called, and its figures saved, inside `style.in_style()`."""
    draw: dict[str, Callable[[Grid], Drawn]] = {
        "gains": gains,
        "curves": curves,
        "attached": attached,
        "labels": labels,
        "profile": profile,
        "improvement": improvement,
        "cost": cost,
        "size": size,
    }
    found = [Plot(name, *drawn) for name, make in draw.items() if (drawn := make(grid)) is not None]
    return found + shares(grid)


def gains(grid: Grid) -> Drawn:
    """Paired difference to the baseline with its interval, a panel a column."""
    base = grid.study.baseline
    if base not in grid.rows:
        return None
    rows = [row for row in grid.rows if row != base]
    ready = [c for c in grid.columns if any(_gap(grid, row, c).pairs for row in rows)]
    if not ready:
        return None
    figure, axes = style.panels(len(ready), height=0.9 + 0.27 * len(rows), legend=False)
    first = axes[0].get_position().x0
    for column, axis in zip(ready, axes, strict=True):
        axis.axvline(0, color=style.INK, linewidth=1)
        for place, row in enumerate(rows):
            gap = _gap(grid, row, column)
            index = grid.rows.index(row)
            if not gap.pairs:
                axis.text(0.02, place, "no pairs", transform=axis.get_yaxis_transform(), va="center", fontsize=7.5)
                continue
            if not np.isnan(gap.low):
                axis.plot([gap.low, gap.high], [place, place], color=style.colour(index), linewidth=2.4)
            axis.plot(gap.value, place, style.marker(index), color=style.colour(index), markersize=6)
        axis.set(title=column, ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        axis.set_yticklabels(rows if abs(axis.get_position().x0 - first) < 1e-3 else [])  # names stand left of the line
        axis.set_xlabel(f"{'game points' if grid.is_game(column) else 'points of accuracy'} over {base}")
        axis.grid(axis="y", visible=False)
    caption = (
        f"Difference to {base}, paired by seed, with its 95 % interval (the wider of the bootstrap's and Student's). "
        "To the right of the line: better; an interval that crosses it decides nothing."
    )
    return f"Gain over {base}", caption, figure


def _gap(grid: Grid, row: str, column: str) -> pairs.Difference:
    return pairs.difference(grid.better(row, [column]), grid.better(grid.study.baseline, [column]))


def labels(grid: Grid) -> Drawn:
    """Score against the number of training images, for tasks that appear with several."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for column in grid.study.tasks:
        if column.train_size is not None and any(_scored(grid, row, column.label) for row in grid.rows):
            name = column.task + (f", {column.network}" if column.network else "")
            groups.setdefault(name, []).append((column.train_size, column.label))
    groups = {name: sorted(sizes) for name, sizes in groups.items() if len(sizes) > 1}
    if not groups:
        return None
    figure, axes = style.panels(len(groups), width=4.8 if len(groups) == 1 else 3.4)
    for (name, sizes), axis in zip(groups.items(), axes, strict=True):
        for index, row in enumerate(grid.rows):
            found = [(size, grid.scores(row, [column])[:, 0]) for size, column in sizes]
            found = [(size, scores[~np.isnan(scores)]) for size, scores in found]
            found = [(size, scores) for size, scores in found if len(scores)]
            if not found:
                continue
            middle = np.array([scores.mean() for _, scores in found])
            spread = np.array([scores.std(ddof=1) if len(scores) > 1 else 0 for _, scores in found])
            x = [size for size, _ in found]
            axis.plot(x, middle, style.dash(index) + style.marker(index), color=style.colour(index), label=row, ms=4)
            axis.fill_between(x, middle - spread, middle + spread, color=style.colour(index), alpha=0.12, linewidth=0)
        ticks = [size for size, _ in sizes]
        axis.set(title=name, xlabel="training images", ylabel="test error, %", xscale="log")
        axis.set_xticks(ticks, [f"{size:,}" for size in ticks])
        axis.minorticks_off()
    style.legend(figure, axes)
    caption = "Test error of the student alone over the number of labelled training images; mean ± standard deviation."
    return "Label efficiency", caption, figure


def _scored(grid: Grid, row: str, column: str) -> bool:
    return bool((~np.isnan(grid.scores(row, [column]))).any())


def _known(grid: Grid) -> tuple[list[str], list[str]]:
    """Return rows with scores, and the columns on which all of them have normalised ones."""
    rows = [row for row in grid.rows if (~np.isnan(grid.normalised(row, grid.columns))).any()]
    there = [all((~np.isnan(grid.normalised(row, [column]))).any() for row in rows) for column in grid.columns]
    return rows, [column for column, known in zip(grid.columns, there, strict=True) if known]


def profile(grid: Grid) -> Drawn:
    """Performance profiles over the columns that every row has."""
    rows, columns = _known(grid)
    if len(rows) < 2 or not columns:
        return None
    found = {row: grid.normalised(row, columns) for row in rows}
    low, high = (edge([edge(values[~np.isnan(values)]) for values in found.values()]) for edge in (np.min, np.max))
    margin = 0.05 * (high - low) + 1e-3
    taus = np.linspace(low - margin, high + margin, 121)
    figure, axes = style.panels(1, width=6.4, height=3.2)
    for index, row in enumerate(grid.rows):
        if row in found:
            value, bottom, top = intervals.profile(found[row], taus)
            axes[0].plot(taus, value, style.dash(index), color=style.colour(index), label=row)
            axes[0].fill_between(taus, bottom, top, color=style.colour(index), alpha=0.12, linewidth=0)
    axes[0].set(xlabel="normalised score τ", ylabel="runs above τ", ylim=(0, 1.02), xlim=(taus[0], taus[-1]))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    style.legend(figure, axes)
    caption = (
        f"Share of runs with a normalised score above τ, over {_count(columns)} that every method shown has run, with "
        "Wilson's pointwise 95 % intervals. Higher is better at every τ."
    )
    return "Performance profiles", caption, figure


def _count(columns: list[str]) -> str:
    return f"the {len(columns)} tasks" if len(columns) > 1 else "the one task"


def improvement(grid: Grid) -> Drawn:
    """Matrix of P(row beats column), over the columns that every row has."""
    rows, columns = _known(grid)
    if len(rows) < 2 or not columns:
        return None
    scores = [grid.normalised(row, columns) for row in rows]
    matrix = np.array([[float(stats.improvement(a, b)) for b in scores] for a in scores])
    np.fill_diagonal(matrix, np.nan)
    side = 1.6 + 0.55 * len(rows)
    figure, axes = style.panels(1, width=side + 1.2, height=side * 0.8, legend=False)
    with sns.axes_style("white"):
        sns.heatmap(
            matrix,
            ax=axes[0],
            annot=True,
            fmt=".2f",
            vmin=0,
            vmax=1,
            cmap="vlag_r",
            linewidths=1.5,
            linecolor=style.PAPER,
            xticklabels=rows,
            yticklabels=rows,
            annot_kws={"fontsize": 8.5},
            cbar_kws={"label": "P(row better than column)", "shrink": 0.8},
        )
    axes[0].grid(visible=False)
    axes[0].tick_params(axis="x", rotation=35, length=0)
    axes[0].tick_params(axis="y", rotation=0, length=0)
    for text in axes[0].get_xticklabels():
        text.set_horizontalalignment("right")
        text.set_rotation_mode("anchor")
    caption = (
        f"How often a run of the row's method beats one of the column's, mean over {_count(columns)} that every method "
        "shown has run; ties count half. 0.5: no difference."
    )
    return "Probability of improvement", caption, figure


def cost(grid: Grid) -> Drawn:
    """Score against training time, the teachers' training as the hollow end of a line."""
    return _against(
        grid,
        lambda row, column: grid.cells[row, column].cost("seconds"),
        lambda row, column: grid.cells[row, column].cost("teacher_seconds"),
        "training, seconds",
        "Score and training cost",
        "Filled: seconds to train the student; hollow: with the training of its teachers, where it has some. The best "
        "corner is the lower left (for games the upper left).",
    )


def size(grid: Grid) -> Drawn:
    """Score against the parameters that are kept, where these differ."""
    kept = {
        cell.cost("parameters") for cell in grid.cells.values() if cell.done and not np.isnan(cell.cost("parameters"))
    }
    if not kept or max(kept) < 1.2 * min(kept):
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
    figure, axes = style.panels(len(ready))
    for column, axis in zip(ready, axes, strict=True):
        for index, row in enumerate(grid.rows):
            if not _scored(grid, row, column):
                continue
            place, score = x(row, column), float(stats.mean(grid.scores(row, [column])))
            more = extra(row, column) if extra else 0.0
            look: dict[str, Any] = {"color": style.colour(index), "markersize": 6}
            if more > 0:
                axis.plot([place, place + more], [score, score], ":", color=style.colour(index), linewidth=1.2)
                axis.plot(place + more, score, style.marker(index), **look, markerfacecolor="none")
            axis.plot(place, score, style.marker(index), **look, linestyle="none", label=row)
        axis.set(title=column, xlabel=name)
        left, right = axis.get_xlim()
        if left > 0 and right > 10 * left:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(lambda value, _: "")
        else:
            axis.set_xlim(0, right)
        axis.set_ylabel("return" if grid.is_game(column) else "test error, %")
        axis.xaxis.set_major_formatter(lambda value, _: short(value))
    style.legend(figure, axes)
    return title, caption, figure
