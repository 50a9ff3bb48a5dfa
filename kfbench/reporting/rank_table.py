"""Do scores that need no training tell which teacher helps? What each promised, beside what the runs measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from kfbench.ranking.names import SCORES
from kfbench.reporting import intervals, naming, stats, style
from kfbench.reporting.curve_plots import Drawn
from kfbench.reporting.grid import Grid
from kfbench.reporting.intervals import Interval
from kfbench.reporting.render import Shown, Table, interval
from kfbench.studies.promises import Group, groups


@dataclass(frozen=True)
class Measured:
    """The teachers of a method on a task that are both ranked and tried."""

    method: str  # with what tells it from another group of that method
    names: tuple[str, ...]
    scores: dict[str, list[float]]  # by the score's name, one a teacher
    better: list[float]  # mean test score over seeds, turned so that higher is better
    shown: tuple[Shown, ...]  # the same as a table prints it
    keys: tuple[str, ...]

    def agreement(self, score: str) -> Interval:
        """Return Kendall's tau of a score and what was measured."""
        tau = float(kendalltau(self.scores[score], self.better).statistic)
        return intervals.kendall(tau, len(self.names))


def tables(grid: Grid) -> list[Table]:
    """Return a table for each column whose teachers are ranked."""
    columns = [column for column in grid.columns if column in grid.ranks]
    made = [(column, _measured(grid, column)) for column in columns]
    return [
        _table(grid, column, every, "teachers" if len(made) == 1 else f"teachers-{grid.columns.index(column) + 1}")
        for column, every in made
        if every
    ]


def _measured(grid: Grid, column: str) -> list[Measured]:
    cells = [cell.planned for cell in grid.cells.values()]
    there = [group for group in groups(cells) if group.column == column]
    each = [_of(grid, group, _name(group, there)) for group in there]
    return [measured for measured in each if measured is not None]


def _name(group: Group, there: Sequence[Group]) -> str:
    """Return the method, and what of its settings or recipe tells the group from others of that method."""
    specs = [other.cells[0].spec.to_json() for other in there if other.method == group.method and other.cells[0].spec]
    own = group.cells[0].spec
    assert own is not None
    words = naming.differing(own.to_json(), specs, ("recipe", "settings"))
    return f"{group.method} ({', '.join(words)})" if words else group.method


def _of(grid: Grid, group: Group, name: str) -> Measured | None:
    ranks = grid.ranks[group.column]
    rows = {}
    for cell in group.cells:
        assert cell.spec is not None
        teacher = cell.spec.teachers[0]
        if teacher in ranks and not np.isnan(grid.scores(cell.row, [group.column])).all():
            rows[teacher] = cell.row
    if len(rows) < 2:
        return None
    means = {name: float(stats.mean(grid.better(row, [group.column]))) for name, row in rows.items()}
    names = sorted(rows, key=lambda name: -means[name])
    return Measured(
        name,
        tuple(names),
        {score: [ranks[name]["scores"][score] for name in names] for score in SCORES},
        [means[name] for name in names],
        tuple(_score(grid, rows[name], group.column) for name in names),
        tuple(record.key for row in rows.values() for record in grid.cells[row, group.column].done),
    )


def _score(grid: Grid, row: str, column: str) -> Shown:
    values = grid.scores(row, [column])[:, 0]
    values = values[~np.isnan(values)]
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    keys = tuple(record.key for record in grid.cells[row, column].done)
    return Shown(f"{values.mean():.1f}{spread} ({len(values)})", values={"mean": float(values.mean())}, keys=keys)


def _table(grid: Grid, column: str, every: Sequence[Measured], name: str) -> Table:
    teachers = list(dict.fromkeys(teacher for measured in every for teacher in measured.names))
    rows = []
    for teacher in teachers:
        results = [
            measured.shown[measured.names.index(teacher)] if teacher in measured.names else Shown("·")
            for measured in every
        ]
        promised = grid.ranks[column][teacher]["scores"]
        scores = [Shown(_form(score, promised[score]), values={"value": promised[score]}) for score in SCORES]
        rows.append((teacher, (*results, *scores)))
    for measured in every:
        taus = [interval(measured.agreement(score), measured.keys, digits=2) for score in SCORES]
        rows.append((f"Kendall's τ, {measured.method} ({len(measured.names)})", (*[Shown("·")] * len(every), *taus)))
    caption = (
        f"Test {grid.metric(column)} of the student with each teacher alone, mean ± standard deviation (number of "
        "seeds), and what `kfbench rank` says of the teacher; higher promises more. Below: Kendall's τ between a score "
        "and the means measured with a method, over its teachers (their number), with a 95 % interval that says what "
        "other teachers might have given; 1: the same order, 0: none."
    )
    head = (*(f"{measured.method}, {grid.metric(column)}" for measured in every), *SCORES)
    return Table(name, f"Which teacher to take: {column}", caption, head, tuple(rows), corner="teacher")


def _form(score: str, value: float) -> str:
    return (f"{value:.1f}" if score in ("parc", "probe") else f"{value:.3f}").replace("-", "−")


def picture(grid: Grid) -> Drawn:
    """Measured test score over each score of the teachers, for the first column whose teachers are ranked."""
    ready = [(column, every) for column in grid.columns if column in grid.ranks and (every := _measured(grid, column))]
    if not ready:
        return None
    column, every = ready[0]
    figure, axes = style.panels(len(SCORES), width=2.6, height=2.3, most=4)
    for score, axis in zip(SCORES, axes, strict=True):
        for index, measured in enumerate(every):
            score_of_each = [grid.sign(column) * value for value in measured.better]
            look: dict[str, Any] = {"color": style.colour(index), "markersize": 5}
            axis.plot(measured.scores[score], score_of_each, style.marker(index), label=measured.method, **look)
        axis.set(title=score, ylabel=f"test {grid.kind(column).scored}" if axis in axes[::4] else "")
        axis.locator_params(axis="x", nbins=4)
    style.legend(figure, axes)
    way = "rising" if grid.sign(column) > 0 else "falling"
    caption = (
        f"Test {grid.kind(column).metric} on {column} over what each score says of the teacher, a point a teacher, "
        f"mean over seeds. A score that tells which teacher helps gives a {way} line."
    )
    return "Promise and transfer", caption, figure
