"""The table of what each method costs: what is kept, and what training took."""

import numpy as np

from kfbench.reporting.grid import Grid
from kfbench.reporting.render import Shown, Table
from kfbench.running.records import RunRecord


def cost(grid: Grid) -> Table:
    """Return what is kept and what training took, mean over the runs of each method."""
    head = (
        "parameters kept",
        "multiply-adds",
        "latency, ms",
        "training, s",
        "teachers, s",
        f"training ÷ {grid.study.baseline}",
    )
    base = _mean_seconds(grid, grid.study.baseline)
    shown = tuple((row, _cost(grid, row, base)) for row in grid.rows)
    caption = (
        "Of the network that is kept: parameters, multiply-adds and latency of one input (a range where tasks differ). "
        "Training: mean seconds a run of the student, and of its teachers' own training, on the records' hardware; "
        f"last, its time over that of {grid.study.baseline}, on the tasks that both have run."
    )
    return Table("cost", "Cost", caption, head, shown)


def _cost(grid: Grid, row: str, base: dict[str, float]) -> tuple[Shown, ...]:
    done = [r for column in grid.columns if (row, column) in grid.cells for r in grid.cells[row, column].done]
    if not done:
        return (Shown("–"),) * 6
    keys = tuple(record.key for record in done)
    own = _mean_seconds(grid, row)
    both = [column for column in own if base.get(column, 0) > 0]
    ratio = sum(own[column] for column in both) / sum(base[column] for column in both) if both else np.nan
    numbers = [_range(done, name) for name in ("parameters", "multiply_adds", "latency_ms")]
    seconds = [_mean(done, name) for name in ("seconds", "teacher_seconds")]
    last = Shown(f"× {ratio:.2f}" if both else "–", values={"low": ratio} if both else {}, keys=keys if both else ())
    return (*(_with(shown, keys) for shown in (*numbers, *seconds)), last)


def _with(shown: Shown, keys: tuple[str, ...]) -> Shown:
    return Shown(shown.text, values=shown.values, keys=keys if shown.values else ())


def _mean_seconds(grid: Grid, row: str) -> dict[str, float]:
    every = {column: grid.cells[row, column].cost("seconds") for column in grid.columns if (row, column) in grid.cells}
    return {column: seconds for column, seconds in every.items() if not np.isnan(seconds)}


def _range(records: list[RunRecord], name: str) -> Shown:
    stated = [record.cost[name] for record in records if name in record.cost]
    if not stated:
        return Shown("–")
    low, high = min(stated), max(stated)
    if name == "latency_ms":  # a timing differs a little from run to run: that is no range over tasks
        low = high = float(np.median(stated))
    text = short(low) if short(low) == short(high) else f"{short(low)}–{short(high)}"
    return Shown(text, values={"low": low, "high": high})


def _mean(records: list[RunRecord], name: str) -> Shown:
    stated = [record.cost[name] for record in records if name in record.cost]
    return Shown(short(float(np.mean(stated))), values={"low": float(np.mean(stated))}) if stated else Shown("–")


def short(number: float) -> str:
    """Return a number with three figures and k, M, G."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
