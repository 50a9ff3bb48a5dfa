"""The table of what each method costs: what is kept, and what training took.

Wall time tells the machine and its load too, so times are compared only where runs of one seed had the same kind of
machine. Records hold its processor, not what else it did.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kfbench.reporting.grid import Grid
from kfbench.reporting.render import Shown, Table, count
from kfbench.running.records import RunRecord


class Latency(NamedTuple):
    """The latency of each network, on the kind of machine that has most of a study's runs."""

    machine: str
    of: dict[tuple[Any, ...], float]  # ms, the smallest of all runs that keep the network: the least disturbed


def cost(grid: Grid) -> Table:
    """Return what is kept and what training took, of the runs of each method."""
    base = grid.study.baseline
    head = ("parameters kept", "multiply-adds", "latency, ms", "training, s", "teachers, s", f"training ÷ {base}")
    latency = _latency(grid)
    shown = tuple((row, _cost(grid, row, latency)) for row in grid.rows)
    caption = (
        "Of the network that is kept: parameters, multiply-adds and latency of one input (a range where tasks differ)"
        f"{f', the smallest that any run which keeps it measured on {latency.machine}' if latency.of else ''}. "
        "Training: mean seconds a run of the student, and of its teachers' own training, on whatever machine made it; "
        "of several tasks the mean of their means. "
        f"Last: its time over that of {base}, where both ran a seed with the same processor, device and number of "
        "threads (in brackets the smallest and the largest of a seed). All times are wall time, and machines may be "
        "shared: they tell the load too, which records do not hold. `kfbench bench` times steps in turns instead; "
        "docs/speed.md has some."
    )
    return Table("cost", "Cost", caption, head, shown)


def timed(grid: Grid, row: str, column: str) -> list[tuple[float, float]]:
    """Return the seconds of a row's run and of the baseline's, for each seed that both ran on one kind of machine."""
    return [
        (ours.cost["seconds"], theirs.cost["seconds"])
        for ours, theirs in _pairs(grid, row, column)
        if machine(ours) == machine(theirs)
    ]


def machine(record: RunRecord) -> str:
    """Return on what kind of machine a run was made, as far as its record tells: processor or device, and threads."""
    origin = record.provenance
    names = dict.fromkeys(str(name) for name in (origin.get("processor"), origin.get("device")) if name)
    threads = origin.get("threads")
    return ", ".join([*names, *([count(threads, "thread")] if threads else [])]) or "an unknown machine"


def _pairs(grid: Grid, row: str, column: str) -> list[tuple[RunRecord, RunRecord]]:
    """Return the runs of a row and of the baseline that share a seed and state their seconds."""
    sides = []
    for name in (row, grid.study.baseline):
        cell = grid.cells.get((name, column))
        sides.append({r.spec["seed"]: r for r in cell.done if "seconds" in r.cost} if cell else {})
    return [(ours, sides[1][seed]) for seed, ours in sides[0].items() if seed in sides[1]]


def _latency(grid: Grid) -> Latency:
    stated = [record for record in grid.done() if "latency_ms" in record.cost]
    if not stated:
        return Latency("", {})
    [(most, _)] = Counter(sorted(machine(record) for record in stated)).most_common(1)
    of: dict[tuple[Any, ...], float] = {}
    for record in stated:
        if machine(record) == most:
            of[_network(record)] = min(of.get(_network(record), np.inf), record.cost["latency_ms"])
    return Latency(most, of)


def _network(record: RunRecord) -> tuple[Any, ...]:
    """Return what tells the network that a run keeps from others."""
    return record.spec["recipe"].get("network"), record.cost.get("parameters"), record.cost.get("multiply_adds")


def _cost(grid: Grid, row: str, latency: Latency) -> tuple[Shown, ...]:
    done = [r for column in grid.columns if (row, column) in grid.cells for r in grid.cells[row, column].done]
    if not done:
        return (Shown("–"),) * 6
    keys = tuple(record.key for record in done)
    kept = [_range([r.cost[name] for r in done if name in r.cost]) for name in ("parameters", "multiply_adds")]
    networks = {_network(record) for record in done if "latency_ms" in record.cost}
    fast = _range([latency.of[network] for network in networks if network in latency.of])
    if not networks <= latency.of.keys():
        fast = replace(fast, note=f"not all that it keeps was measured on {latency.machine}")
    seconds = [_mean(grid, row, name) for name in ("seconds", "teacher_seconds")]
    every = (*kept, fast, *seconds, _ratio(grid, row))
    return tuple(replace(shown, keys=keys if shown.values else ()) for shown in every)


def _ratio(grid: Grid, row: str) -> Shown:
    """Return the time of training over the baseline's: of the columns' means over seeds, those that both have."""
    of_columns = [pairs for column in grid.columns if (pairs := timed(grid, row, column))]
    shared = sum(len(_pairs(grid, row, column)) for column in grid.columns)
    alike = sum(map(len, of_columns))
    base = grid.study.baseline
    if not alike:
        return Shown("–", note=f"no seed was run on the same kind of machine as {base}'s" if shared else "")
    note = f"over {alike} of {count(shared, 'pair of runs')}: the others had two kinds of machine"
    ours, theirs = np.sum([np.mean(pairs, axis=0) for pairs in of_columns], axis=0)
    each = [own / their for pairs in of_columns for own, their in pairs]
    ends = f" ({min(each):.2f}–{max(each):.2f})" if alike > 1 and row != base else ""
    values: dict[str, float | int | str] = {"ratio": ours / theirs}
    return Shown(f"× {ours / theirs:.2f}{ends}", note=note if alike < shared else "", values=values)


def _range(stated: Sequence[float]) -> Shown:
    if not stated:
        return Shown("–")
    low, high = min(stated), max(stated)
    text = short(low) if short(low) == short(high) else f"{short(low)}–{short(high)}"
    return Shown(text, values={"low": low, "high": high})


def _mean(grid: Grid, row: str, name: str) -> Shown:
    """Return the mean of a cost over the columns of which a row states it; told where others have more columns."""

    def means(of: str) -> list[float]:
        there = (grid.cells[of, column].cost(name) for column in grid.columns if (of, column) in grid.cells)
        return [mean for mean in there if not np.isnan(mean)]

    own, most = means(row), max(len(means(other)) for other in grid.rows)
    if not own:
        return Shown("–")
    note = f"over {count(len(own), 'column')}, others over {most}" if len(own) < most else ""
    return Shown(short(float(np.mean(own))), note=note, values={"mean": float(np.mean(own))})


def short(number: float) -> str:
    """Return a number with three figures and k, M, G."""
    number = float(f"{number:.3g}")  # 999.6 is 1 k
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
