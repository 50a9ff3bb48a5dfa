"""The plots of a study, drawn from its grid of records: comparisons of methods here, others in `*_plots`."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.ticker import PercentFormatter

from kfbench.reporting import intervals, pairs, rank_table, stats, style
from kfbench.reporting.curve_plots import Drawn, Plot, attached, curves, foremost
from kfbench.reporting.grid import Grid
from kfbench.reporting.mixing_plots import mixing
from kfbench.reporting.score_plots import cost, labels, size

STRAY = 10  # an interval that many times as long as the others' median would make points of them
SHADES = "vlag_r"  # seaborn's: red, white, blue


def plots(grid: Grid) -> list[Plot]:
    """Draw all that have something to show. Must be called, and its figures saved, inside `style.in_style()`."""
    draw: dict[str, Callable[[Grid], Drawn]] = {
        "gains": gains,
        "teachers": rank_table.picture,
        "curves": curves,
        "attached": attached,
        "labels": labels,
        "profile": profile,
        "improvement": improvement,
        "cost": cost,
        "size": size,
    }
    drawn = [Plot(name, *parts) for name, make in draw.items() if (parts := make(grid)) is not None]
    return drawn + mixing(grid)


def gains(grid: Grid) -> Drawn:
    """Paired difference to the baseline with its interval, a panel a column."""
    base = grid.study.baseline
    if base not in grid.rows:
        return None
    rows = [row for row in grid.rows if row != base]
    gaps = {column: [_gap(grid, row, column) for row in rows] for column in grid.columns}
    ready = [column for column in grid.columns if any(gap.pairs for gap in gaps[column])]
    if not ready:
        return None
    figure, axes = style.panels(len(ready), height=0.9 + 0.27 * len(rows), legend=False)
    first = axes[0].get_position().x0
    names = style.short(grid.rows)
    beside = max(len(names[row]) for row in rows)
    for column, axis in zip(ready, axes, strict=True):
        axis.axvline(0, color=style.INK, linewidth=1)
        for place, (row, gap) in enumerate(zip(rows, gaps[column], strict=True)):
            index = grid.rows.index(row)
            if not gap.pairs:
                axis.text(0.02, place, "no pairs", transform=axis.get_yaxis_transform(), va="center", fontsize=7.5)
                continue
            if not np.isnan(gap.low):
                axis.plot([gap.low, gap.high], [place, place], color=style.colour(index), linewidth=2.4)
            is_lone = np.isnan(gap.low)
            look: dict[str, Any] = {"markerfacecolor": style.PAPER} if is_lone else {}
            axis.plot(gap.value, place, style.marker(index), color=style.colour(index), markersize=6, **look)
        axis.set(title=column, ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
        is_left = abs(axis.get_position().x0 - first) < 1e-3  # names stand left of the line
        axis.set_yticklabels([names[row] for row in rows] if is_left else [])
        axis.set_xlabel(style.folded(f"{grid.kind(column).gained} over {names[base]}", figure, axis, beside=beside))
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="y", visible=False)
    caption = (
        f"Difference to {base}, paired by seed, with its 95 % interval (the wider of the bootstrap's and Student's). "
        "To the right of the line: better; an interval that crosses it decides nothing."
    )
    if any(gap.pairs and np.isnan(gap.low) for column in ready for gap in gaps[column]):
        caption += " Hollow: pairs too few for an interval."
    colours = [style.colour(grid.rows.index(row)) for row in rows]
    if any([_cut(axis, gaps[column], colours) for column, axis in zip(ready, axes, strict=True)]):
        caption += " One that ends in an arrow goes on beyond the scale."
    return f"Gain over {base}", caption, figure


def _gap(grid: Grid, row: str, column: str) -> pairs.Difference:
    return pairs.difference(grid.better(row, [column]), grid.better(grid.study.baseline, [column]))


def _cut(axis: Axes, gaps: list[pairs.Difference], colours: list[str]) -> bool:
    """Cut an axis to the overview's scale if one interval is so long that it hides the others; say whether it was."""
    lengths = sorted(gap.high - gap.low for gap in gaps if not np.isnan(gap.low))
    if len(lengths) < 2 or lengths[-1] <= STRAY * np.median(lengths[:-1]):
        return False
    low, high = intervals.scale([gap.interval for gap in gaps if gap.pairs])
    below = [(low, place, CARETLEFT) for place, gap in enumerate(gaps) if gap.low < low]
    above = [(high, place, CARETRIGHT) for place, gap in enumerate(gaps) if gap.high > high]
    for end, place, arrow in (*below, *above):
        axis.plot(end, place, marker=arrow, color=colours[place], markersize=8, clip_on=False)
    if below or above:
        axis.set_xlim(low, high)
    return bool(below or above)


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
    scores = {row: grid.normalised(row, columns) for row in rows}
    low, high = (edge([edge(values[~np.isnan(values)]) for values in scores.values()]) for edge in (np.min, np.max))
    margin = 0.05 * (high - low) + 1e-3
    taus = np.linspace(low - margin, high + margin, 121)
    figure, axes = style.panels(1, width=6.4, height=3.2)
    coloured = foremost(grid)
    for row in scores:
        share = stats.profile(scores[row], taus)
        if row in coloured:
            index = coloured.index(row)
            axes[0].plot(taus, share, style.dash(index), color=style.colour(index), label=row)
        else:
            axes[0].plot(taus, share, color=style.INK, linewidth=0.7, alpha=0.3, label="others")
    _interval_key(axes[0], min(intervals.worth(values) for values in scores.values()))
    axes[0].set(xlabel="normalised score τ", ylabel="runs above τ", ylim=(0, 1.02), xlim=(taus[0], taus[-1]))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    style.legend(figure, axes)
    caption = (
        f"Share of runs with a normalised score above τ, over {_over(grid, columns)}. "
        "Higher is better at every τ. At the right Wilson's pointwise 95 % interval of a line at that height: it "
        "depends on nothing but the share and the number of runs."
    )
    return "Performance profiles", caption, figure


def _interval_key(axis: Axes, runs: float) -> None:
    """Draw the intervals of some shares beside the axis."""
    look: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "color": style.INK, "clip_on": False}
    for place, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        x = 1.025 + 0.02 * place
        axis.plot([x, x], [float(end) for end in intervals.wilson(share, runs)], linewidth=1, **look)
        axis.plot(x, share, "o", markersize=3, **look)


def _over(grid: Grid, columns: list[str]) -> str:
    """Say over which tasks a plot is, by name where it leaves others out."""
    if len(columns) == len(grid.columns):
        return f"the {len(columns)} tasks that every method shown has run" if len(columns) > 1 else columns[0]
    part = "not all methods shown have run more" if len(columns) < len(grid.scaled) else ""
    why = " and ".join(filter(None, (part, grid.unscaled(grid.columns))))
    return f"{len(columns)} of {len(grid.columns)} tasks, as {why}: {' · '.join(columns)}"


def improvement(grid: Grid) -> Drawn:
    """Matrix of P(row beats column), over the columns that every row has; of many rows the foremost."""
    every, columns = _known(grid)
    coloured = foremost(grid)
    rows = [row for row in every if row in coloured]
    if len(rows) < 2 or not columns:
        return None
    scores = [grid.normalised(row, columns) for row in rows]
    matrix = np.array([[float(stats.improvement(a, b)) for b in scores] for a in scores])
    np.fill_diagonal(matrix, np.nan)
    ends = [[intervals.improvement(a, b) for b in scores] for a in scores]
    names = [*style.short(rows).values()]
    side = 1.6 + 0.55 * len(rows)
    figure, axes = style.panels(1, width=side + 1.2, height=side * 0.8, legend=False)
    sns.heatmap(
        matrix,
        ax=axes[0],
        annot=True,
        fmt=".2f",
        vmin=0,
        vmax=1,
        cmap=SHADES,
        linewidths=1.5,
        linecolor=style.PAPER,
        xticklabels=names,
        yticklabels=names,
        annot_kws={"fontsize": 8.5},
        cbar_kws={"label": "P(row better than column)", "shrink": 0.8},
    )
    for axis in figure.axes:  # the bar of colours too
        axis.grid(visible=False)
    axes[0].tick_params(axis="x", rotation=35, length=0)
    axes[0].tick_params(axis="y", rotation=0, length=0)
    for text in axes[0].texts:  # at the middle of its cell
        down, right = (int(place) for place in text.get_position()[::-1])
        if ends[down][right].low > 0.5 or ends[down][right].high < 0.5:
            text.set_fontweight("bold")
        bright = sns.utils.relative_luminance(matplotlib.colormaps[SHADES](matrix[down, right]))
        text.set_color("white" if bright < 0.22 else "#262626")  # there the two stand out alike
    for text in axes[0].get_xticklabels():
        text.set_horizontalalignment("right")
        text.set_rotation_mode("anchor")
    where = f"{'mean over' if len(columns) > 1 else 'on'} {_over(grid, columns)}"
    caption = (
        f"How often a run of the row's method beats one of the column's, {where}; "
        "ties count half. 0.5: no difference; bold: Newcombe's 95 % interval does not hold it."
    )
    return "Probability of improvement", caption, figure
