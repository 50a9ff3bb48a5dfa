"""Plots of what Knowledge Flow mixes, layer by layer over training: shares, and the influence that teachers have.

A share is a weight of the mix: how much the student means to take. Influence is what arrives: the root mean square of a
teacher's weighted features over that of the student's own, since a teacher's features may be large where its share is
small. Curves name them `share/LAYER/WHO` and `influence/LAYER/TEACHER`; records may lack the second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from kfbench.reporting import style
from kfbench.reporting.curve_plots import ATTACHED, Plot, curve, scale
from kfbench.reporting.grid import Array, Grid
from kfbench.running.records import RunRecord

LAYERS = 4  # single layers shown
LEAST = 1e-3  # influence below it is drawn there


@dataclass(frozen=True)
class Mix:
    """What the curves of a row on a column say of its mixed layers."""

    grid: Grid
    row: str
    column: str

    def done(self) -> list[RunRecord]:
        """Return the finished runs."""
        cell = self.grid.cells.get((self.row, self.column))
        return cell.done if cell else []

    def stating(self, kind: str) -> list[RunRecord]:
        """Return the finished runs whose curves state a `kind/LAYER/WHO`."""
        return [record for record in self.done() if _parts([record], kind)]

    def parts(self, kind: str) -> list[tuple[str, str]]:
        """Return (layer, who) of every `kind/LAYER/WHO`, in the curves' order."""
        return _parts(self.done(), kind)

    def layers(self, kind: str) -> list[str]:
        """Return the mixed layers, lowest first."""
        return list(dict.fromkeys(layer for layer, _ in self.parts(kind)))

    def members(self, kind: str, layers: list[str]) -> list[str]:
        """Return who takes part in the layers, the student first."""
        names = dict.fromkeys(who for layer, who in self.parts(kind) if layer in layers)
        return sorted(names, key=lambda name: name != "student")

    def means(self, kind: str, layers: list[str], who: str) -> tuple[Array, Array]:
        """Return progress [T] and the mean over seeds for each layer that `who` takes part in, [L, T]; NaN: not stated.

        The points are those of all who take part in the layers.
        """
        there = [(layer, name) for layer, name in self.parts(kind) if layer in layers]
        found = {part: curve(self.grid, self.row, self.column, f"{kind}/{part[0]}/{part[1]}") for part in there}
        every = np.unique(np.concatenate([times for times, _ in found.values()]))  # when any of them is stated
        own = [curve for (_, name), curve in found.items() if name == who and curve[1].size]
        means = np.full((len(own), len(every)), np.nan)
        for row, (times, values) in zip(means, own, strict=True):
            row[np.searchsorted(every, times)] = np.nanmean(values, axis=0)
        return every, means

    def until(self) -> float:
        """Return the progress at which curves last tell of teachers: after the cut shares stand still. 1: they do not.

        Influence, and the score of the student with its teachers, are told while these are there.
        """
        told = [
            point["progress"]
            for record in self.done()
            for point in record.curve
            if ATTACHED in point or any(name.startswith("influence/") for name in point)
        ]
        return max(told, default=1.0)


def mixing(grid: Grid) -> list[Plot]:
    """Draw shares (the paper's figure 1c) and, where curves state it, influence, for each row that mixes."""
    plots = []
    for number, row in enumerate(grid.rows):
        mixes = [mix for column in grid.columns if (mix := Mix(grid, row, column)).parts("share")]
        if mixes:
            plots.append(_shares(number, mixes))
        mixes = [mix for mix in mixes if mix.parts("influence")]
        if mixes:
            plots.append(_influence(number, mixes))
    return plots


def _shares(number: int, mixes: list[Mix]) -> Plot:
    caption = (
        f"{mixes[0].row}: how much of each mixed layer is the student's own and how much comes from each teacher, "
        f"{_over(mixes, 'share')}; first the mean over all layers, then single layers from the lowest to the highest."
    )
    if any(mix.until() < 1 for mix in mixes):
        caption += " Bands end where the teachers are cut off: from there on all is the student's own."
    return _panels(f"shares-{number}", f"Shares of {mixes[0].row}", caption, mixes, "share", "mean of layers")


def _influence(number: int, mixes: list[Mix]) -> Plot:
    caption = (
        f"{mixes[0].row}: how strong each teacher's part of a mixed layer is beside the student's own (root mean "
        f"square over root mean square, {_over(mixes, 'influence')}, logarithmic). At the line of 1 both are equally "
        "strong; the student stands on its own where all teachers are far below it, whatever the shares say. First "
        f"the largest of all layers, then single ones from the lowest to the highest. Values below {LEAST:g} are drawn "
        "there; a line ends where the teachers are cut off."
    )
    title = f"Influence of the teachers in {mixes[0].row}"
    return _panels(f"influence-{number}", title, caption, mixes, "influence", "largest of layers")


def _parts(records: list[RunRecord], kind: str) -> list[tuple[str, str]]:
    keys = dict.fromkeys(key for record in records for point in record.curve for key in point)
    split = [key.split("/", 2) for key in keys]
    return [(part[1], part[2]) for part in split if len(part) == 3 and part[0] == kind]


def _over(mixes: list[Mix], kind: str) -> str:
    """Say what a mean is over: records may be older than the curve that is drawn, and then it lacks their runs."""
    stating = sum(len(mix.stating(kind)) for mix in mixes)
    done = sum(len(mix.done()) for mix in mixes)
    return "mean over seeds" if stating == done else f"mean over the {stating} of {done} runs that recorded it"


def _panels(name: str, title: str, caption: str, mixes: list[Mix], kind: str, first: str) -> Plot:
    """Draw a line of panels for each column: all layers together, then single ones. The same place in both kinds."""
    across = 1 + max(min(len(mix.layers("share")), LAYERS) for mix in mixes)
    everyone = ["student"]  # one colour each, whatever the panel
    for mix in mixes:
        everyone += [who for who in mix.members("share", mix.layers("share")) if who not in everyone]
    figure, axes = style.panels(across * len(mixes), width=10.2 / across, height=2.2, most=across)
    for line, mix in enumerate(mixes):
        layers = mix.layers("share")
        single = [layers[n] for n in np.linspace(0, len(layers) - 1, min(len(layers), LAYERS)).round().astype(int)]
        for place in range(across):
            axis = axes[line * across + place]
            if place > len(single):
                axis.set_visible(False)
                continue
            shown = layers if place == 0 else [single[place - 1]]
            draw = _stack if kind == "share" else _strengths
            draw(axis, mix, shown, everyone)
            axis.set_title(first if place == 0 else single[place - 1])
            axis.set_ylabel(f"{mix.column}\n{kind}" if place == 0 else "")
    style.legend(figure, axes)
    return Plot(name, title, caption, figure)


def _stack(axis: Axes, mix: Mix, layers: list[str], everyone: list[str]) -> None:
    """Stack mean shares: the student below, its teachers above it."""
    bottom: Array | None = None
    whole, unit = scale(mix.grid, mix.row, mix.column)
    for who in mix.members("share", layers):
        times, means = mix.means("share", layers, who)
        attached = times <= mix.until() + 1e-9
        times, means = times[attached], means[:, attached]
        mean = np.nansum(means, axis=0) / len(layers)  # a teacher has no share of a layer it is not linked to
        bottom = np.zeros_like(mean) if bottom is None else bottom
        look: dict[str, Any] = {"color": style.colour(everyone.index(who)), "alpha": 0.85, "linewidth": 0}
        axis.fill_between(times * whole, bottom, bottom + mean, label=_short(who, everyone), **look)
        bottom = bottom + mean
    axis.set(ylim=(0, 1), xlim=(0, whole), xlabel=unit)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def _strengths(axis: Axes, mix: Mix, layers: list[str], everyone: list[str]) -> None:
    """Draw each teacher's influence, the largest over the layers."""
    whole, unit = scale(mix.grid, mix.row, mix.column)
    axis.axhline(1, color=style.INK, linewidth=0.8)
    for who in mix.members("influence", layers):
        times, means = mix.means("influence", layers, who)
        largest = np.fmax.reduce(means, axis=0)
        index = everyone.index(who) if who in everyone else len(everyone)
        drawn = np.where(largest > 0, np.maximum(largest, LEAST), np.nan)
        look: dict[str, Any] = {
            "color": style.colour(index),
            "marker": style.marker(index),
            "markevery": max(1, len(times) // 6),
        }
        axis.plot(times * whole, drawn, style.dash(index), label=_short(who, everyone), markersize=3.5, **look)
    axis.set(yscale="log", xlim=(0, whole), xlabel=unit)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.1), max(high, 3))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _short(who: str, everyone: list[str]) -> str:
    """Return a name without its budget, which would make the legend too long, unless that tells two apart."""
    short = who.partition("@")[0]
    return short if sum(name.partition("@")[0] == short for name in everyone) == 1 else who
