"""The tables of a study: scores and a summary over tasks here, the others in `learning_table` and `cost_table`."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kfbench.kinds import Kind
from kfbench.reporting import intervals, pairs, rank_table, stats
from kfbench.reporting.cost_table import cost
from kfbench.reporting.grid import Array, Cell, Grid
from kfbench.reporting.intervals import Interval
from kfbench.reporting.learning_table import learning
from kfbench.reporting.render import Shown, Table, count, interval
from kfbench.running import records
from kfbench.studies.definition import Table as Layout

TRIMMED = 4  # scores, or more: a quarter of them is one


def tables(grid: Grid) -> list[Table]:
    """Return every table of a study: its own layouts (default: all cells), then summary and cost."""
    layouts = grid.study.tables or [Layout(name="scores", title=grid.study.title)]
    parts = [scores(grid, layout) for layout in layouts]
    return [*parts, *rank_table.tables(grid), summary(grid), learning(grid), cost(grid)]


def scores(grid: Grid, layout: Layout) -> Table:
    """Return mean ± standard deviation (number of seeds) of each cell, ties with the best in bold."""
    rows, columns = layout.rows or grid.rows, layout.columns or grid.columns
    best = {column: _best(grid, rows, column) for column in columns}

    def cell(row: str, column: str) -> Shown:
        return _with_published(grid, row, column, _score(grid, row, column, is_best=row in best[column]))

    shown = tuple((row, tuple(cell(row, column) for column in columns)) for row in rows)
    units = dict.fromkeys(_unit(grid.kind(column)) for column in columns)
    weights = {"last": "last weights", "best": "weights best on validation"}[grid.study.score]
    base = grid.study.baseline
    caption = (
        f"{'; '.join(units).capitalize()}. Test score of the {weights}, the student alone or with what its method "
        "keeps of teachers: mean ± standard deviation "
        "over seeds (number of seeds). Bold: the best mean of those with several runs, or who clearly beats it on the "
        "seeds of both, and what a paired 95 % interval does not tell from that one: it is as good, or undecided; what "
        f"varies much can be bold far below. ▲ ▼: clearly better or worse than {base}; ▼ is negative transfer. Each by "
        "its own interval: of twenty that differ in nothing, one is expected to be marked by luck."
    )
    return Table(layout.name, layout.title, caption, tuple(columns), shown)


def _unit(kind: Kind) -> str:
    return f"{kind.metric} in {kind.score_unit}, {'higher' if kind.higher_is_better else 'lower'} is better"


def _best(grid: Grid, rows: Sequence[str], column: str) -> set[str]:
    """Return the best row and all rows not clearly below it, of those with several runs; empty if that cannot be said.

    The best has the best mean; but rows may have run other seeds, and then one that clearly beats it takes its place.
    """
    scores = {row: grid.better(row, [column]) for row in rows}
    scores = {row: values for row, values in scores.items() if stats.counts(values)[0] > 1}
    if len(scores) < 2:
        return set()
    tops = [max(scores, key=lambda row: float(stats.mean(scores[row])))]
    while True:
        gaps = {row: pairs.difference(scores[row], scores[tops[-1]]) for row in scores if row != tops[-1]}
        ahead = [row for row, gap in gaps.items() if gap.low > 0 and row not in tops]
        if not ahead:
            break
        tops.append(max(ahead, key=lambda row: gaps[row].value))
    if all(np.isnan(gap.low) and not gap.is_equal for gap in gaps.values()):
        return set()
    return {tops[-1]} | {row for row, gap in gaps.items() if gap.pairs and not gap.high < 0}  # NaN: not told from it


def _with_published(grid: Grid, row: str, column: str, shown: Shown) -> Shown:
    for known in grid.study.reference:
        if (known.row, known.column) == (row, column):
            return replace(shown, published=_plain(known.value), source=known.source)
    return shown


def _plain(value: float) -> str:
    return str(value).removesuffix(".0").replace("-", "−")


def _score(grid: Grid, row: str, column: str, *, is_best: bool) -> Shown:
    cell = grid.cells.get((row, column))
    if cell is None:
        return Shown("·")
    if cell.planned.spec is None:
        return Shown("n/a", note=f"n/a, because {cell.planned.reason}")
    values = cell.scores(grid.study.score, grid.metric(column))
    there = values[~np.isnan(values)]
    if not len(there):
        return Shown("–", note=_lack(grid, cell))
    mean, sd = float(there.mean()), float(there.std(ddof=1)) if len(there) > 1 else np.nan
    numbers: dict[str, float | int | str] = {
        "metric": grid.metric(column),
        "mean": mean,
        "sd": "" if np.isnan(sd) else sd,
        "seeds": len(there),
        "failed": len(cell.failed),
        "missing": cell.missing,
    }
    digits = 1 if grid.kind(column).is_percent or abs(mean) < 100 else 0
    spread = "" if np.isnan(sd) else f" ± {sd:.{digits}f}"
    whole = len(there) == len(cell.records)
    runs = f"{len(there)}" if whole else f"{len(there)} of {len(cell.records)}"
    return Shown(
        f"{mean:.{digits}f}{spread} ({runs})".replace("-", "−"),
        is_best=is_best,
        mark=_mark(grid, row, column),
        note="; ".join(filter(None, ["" if whole else _lack(grid, cell), records.cut(cell.done, grid.study.score)])),
        values=numbers,
        keys=tuple(record.key for record in cell.done),
    )


def _mark(grid: Grid, row: str, column: str) -> str:
    if row == grid.study.baseline or grid.study.baseline not in grid.rows:
        return ""
    return pairs.difference(grid.better(row, [column]), grid.better(grid.study.baseline, [column])).mark


def _lack(grid: Grid, cell: Cell) -> str:
    """Say what a cell lacks, and the command that fills it; those that lack everything share one note."""
    if cell.missing == len(cell.records):
        command = shlex.join(["kfbench", "study", grid.place, *grid.source])
        return f"not run yet: {command} (--row and --column for a part)"
    failures = "; ".join(dict.fromkeys(record.error or "no reason recorded" for record in cell.failed))
    failed = f"{len(cell.failed)} failed ({failures})" if cell.failed else ""
    missing = f"{cell.missing} not run yet" if cell.missing else ""
    return f"{', '.join(filter(None, [failed, missing]))}: {fill(grid, cell.planned.row, cell.planned.column)}"


def fill(grid: Grid, row: str, column: str) -> str:
    """Return the command that runs what a cell lacks."""
    return shlex.join(["kfbench", "study", grid.place, *grid.source, "--row", row, "--column", column])


def summary(grid: Grid) -> Table:
    """Return aggregates over all columns on the scale that tasks share, and each method against the baseline."""
    base = grid.study.baseline
    shown = tuple((row, tuple(_summary(grid, row))) for row in grid.rows)
    caption = (
        "IQM and mean of normalised scores (accuracy as a fraction; human-normalised returns, no-op references) over "
        "all runs, with 95 % intervals: the stratified bootstrap's, stretched for few runs, and Student's, cut where "
        "accuracies end. Tasks count alike, however many runs each has; the IQM of fewer than four runs trims nothing "
        "and is left out. Difference: paired by seed, in hundredths of the normalised score (points of accuracy), with "
        "the wider of the bootstrap's and Student's intervals. P: probability that a run of the method beats one of "
        f"{base}, mean over tasks, with Newcombe's score interval, which holds near 0 and 1 too. Transfer: number of "
        f"tasks where the method is clearly better than {base}, where neither is, where it is clearly worse."
    )
    head = ("columns", "IQM", "mean", f"difference to {base}", f"P(better than {base})", "transfer ▲ / · / ▼")
    return Table("summary", "Summary over tasks", caption, head, shown)


def _summary(grid: Grid, row: str) -> list[Shown]:
    base, every = grid.study.baseline, grid.scaled
    normal = grid.normalised(row, every)
    keys = tuple(r.key for column in every if (row, column) in grid.cells for r in grid.cells[row, column].done)
    there = int((stats.counts(normal) > 0).sum())
    most = max(int((stats.counts(grid.normalised(other, every)) > 0).sum()) for other in grid.rows)
    part = f"over {count(there, 'column')}, others over {most}: IQM and mean do not compare"
    notes = [part if 0 < there < most else "", grid.lack(row, every), grid.unscaled(grid.columns)]
    columns = Shown(f"{there} of {len(grid.columns)}", note="; ".join(filter(None, notes)), values={"value": there})
    if not keys:
        return [columns, *[Shown("–")] * 5]
    aggregates = [interval(estimate, keys) for estimate in _aggregates(grid, normal)]
    if row == base or base not in grid.rows:
        return [columns, *aggregates, *[Shown("·")] * 3]
    ours, theirs = 100 * normal, 100 * grid.normalised(base, every)
    both = (stats.counts(ours) > 0) & (stats.counts(theirs) > 0)
    if not both.any():
        return [columns, *aggregates, *[Shown("–")] * 3]
    gap = pairs.difference(ours, theirs)
    marks = [_mark(grid, row, column) for column, known in zip(every, both, strict=True) if known]
    counts = [marks.count(mark) for mark in ("▲", "", "▼")]
    few = "" if both.sum() == there else f"over the {count(int(both.sum()), 'column')} that {base} has too"
    lone = int(stats.counts(ours)[both].sum()) - gap.pairs
    unpaired = f"without {count(lone, 'run')} whose seed {base} lacks" if lone else ""
    compared = (
        interval(gap.interval, keys, sign="+", digits=2),
        interval(intervals.improvement(ours, theirs), keys, digits=2),
        Shown(" / ".join(map(str, counts)), values=dict(zip(("better", "unclear", "worse"), counts, strict=True))),
    )
    of_each = ("; ".join(filter(None, [few, unpaired])), few, few)
    return [columns, *aggregates, *(replace(shown, note=note) for shown, note in zip(compared, of_each, strict=True))]


def _aggregates(grid: Grid, normal: Array) -> list[Interval]:
    """Return IQM and mean of normalised scores [N, M]; NaN for an IQM of too few scores to trim any.

    An interval of accuracies ends where accuracies do.
    """
    iqm = intervals.iqm(normal) if stats.counts(normal).sum() >= TRIMMED else Interval(np.nan, np.nan, np.nan)
    low, high = (0.0, 1.0) if all(grid.kind(column).is_percent for column in grid.scaled) else (-np.inf, np.inf)
    return [of._replace(low=max(of.low, low), high=min(of.high, high)) for of in (iqm, intervals.mean(normal))]
