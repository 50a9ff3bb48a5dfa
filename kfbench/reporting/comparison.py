"""Recorded runs side by side: scores, paired differences with their intervals, curves. Imports no torch.

A contender is what differs in more than the seed; it is compared with the first one by the pairs of runs that share a
seed, and so initialisation, batch order and augmentation.
"""

import json
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfbench import registry
from kfbench.errors import KfbenchError, KfbenchWarning, near
from kfbench.kinds import Kind
from kfbench.reporting import naming
from kfbench.reporting.lines import columns, folded
from kfbench.reporting.render import count
from kfbench.reporting.stats import Array
from kfbench.running import records
from kfbench.running.records import RunRecord
from kfbench.spec import digest
from kfbench.studies.definition import FIRST_SEED


@dataclass(frozen=True)
class Contender:
    """Runs that differ in their seed only, done ones, with the name that tells them from the others of their table."""

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def kind(self) -> Kind:
        """The kind of the task, which knows what the score is called, its unit, and whether a higher one is better."""
        return registry.kind_of(self.runs[0].spec["task"])

    def scores(self, seeds: Sequence[int]) -> Array:
        """Return the score after the last step of each seed [N, 1], NaN where there is no run."""
        metric = self.kind.metric
        of = {record.spec["seed"]: record.scores.get("last", {}).get(metric, np.nan) for record in self.runs}
        return np.array([[of.get(seed, np.nan)] for seed in seeds])

    def data(self) -> dict[int, str | None]:
        """Return the checksum of the data of each seed's run: runs on other test images are no pair."""
        return {record.spec["seed"]: record.identity.get("data") for record in self.runs}


@dataclass(frozen=True)
class Table:
    """Contenders on one task, in the order they were asked for; differences are to the first."""

    title: str
    contenders: tuple[Contender, ...]
    left_out: int = 0  # single runs with other settings, as a search leaves them, of methods that have several runs
    of_search: int = 0  # runs with a seed by which searches choose: who was chosen by a run is not judged by it


def of_keys(results: Path, keys: Sequence[str], *, all_seeds: bool = False) -> Table:
    """Return the table of the runs with these keys; with `all_seeds` also of runs that differ from them in the seed.

    Raises KfbenchError if a key fits none or several, a run is not done, or the runs are not of one task.
    """
    chosen = list({record.key: record for record in (records.locate(results, key)[1] for key in keys)}.values())
    for record in chosen:
        if record.status != "done":
            raise KfbenchError(f"run '{record.key}' is {record.status}: {record.error}; kfbench show {record.key}")
    tasks = list(dict.fromkeys(record.spec["task"] for record in chosen))
    if len(tasks) > 1:
        raise KfbenchError(f"runs on different tasks ({', '.join(tasks)}) cannot be compared; give runs on one")
    _require_one_a_seed(chosen)
    wanted = list(dict.fromkeys(_but_seed(record) for record in chosen))
    if all_seeds:
        named = {digest(record.spec) for record in chosen}
        chosen += [record for record in _done(results) if digest(record.spec) not in named]
    groups = [[record for record in chosen if _but_seed(record) == each] for each in wanted]
    if len(groups) < 2:
        raise KfbenchError("that is one contender: the runs differ in nothing but their seeds; give another's key too")
    kept = [_reported(group, {*keys}) for group in groups]
    lost = sum(map(len, groups)) - sum(map(len, kept))
    return _table(tasks[0], kept, what=(*PARTS, "recipe"), of_search=lost)


def _reported(group: list[RunRecord], named: Container[str] = ()) -> list[RunRecord]:
    """Leave out runs with a seed of searches where there are others, but for keys that are named."""
    kept = [record for record in group if not _is_of_search(record) or record.key in named]
    return kept or group


def _is_of_search(record: RunRecord) -> bool:
    return bool(record.spec["seed"] >= FIRST_SEED)


def _require_one_a_seed(chosen: Sequence[RunRecord]) -> None:
    """Raise KfbenchError for two runs of one spec: made when data, teachers or code were others, they are no pair."""
    seen: dict[str, RunRecord] = {}
    for record in chosen:
        other = seen.setdefault(digest(record.spec), record)
        if other is not record:
            names = {*other.identity, *record.identity} - {"spec"}
            what = sorted(name for name in names if other.identity.get(name) != record.identity.get(name))
            raise KfbenchError(
                f"runs '{other.key}' and '{record.key}' have one spec and seed, and differ in {' and '.join(what)}; "
                "give one of them"
            )


def of_methods(results: Path, methods: Sequence[str], task: str) -> list[Table]:
    """Return a table for each recipe with which at least two contenders ran on a task.

    Raises KfbenchError if a method has no run there, or no two share a recipe. Warns of a method that is in no table.
    """
    on_task = [record for record in _done(results) if record.spec["task"] == task]
    there = sorted({record.spec["method"] for record in on_task})
    if not there:
        tasks = sorted({record.spec["task"] for record in _done(results)})
        raise KfbenchError(f"no finished run on task '{task}' in '{results}'; {near(task, tasks)}")
    for method in (methods := list(dict.fromkeys(map(registry.named, methods)))):
        if method not in there:
            raise KfbenchError(f"no finished run of '{method}' on '{task}' in '{results}'; {near(method, there)}")
    recipes: dict[str, list[RunRecord]] = {}
    for method in methods:
        for record in on_task:
            if record.spec["method"] == method:
                recipes.setdefault(json.dumps(record.spec["recipe"], sort_keys=True), []).append(record)
    tables = []
    for runs in recipes.values():
        every = [[r for r in runs if _but_seed(r) == each] for each in dict.fromkeys(map(_but_seed, runs))]
        fresh = {record.spec["method"] for record in runs if not _is_of_search(record)}
        every = [g for g in every if g[0].spec["method"] not in fresh or not all(map(_is_of_search, g))]  # no trials
        groups = [_reported(group) for group in every]
        most = {
            each: max(len(g) for g in groups if g[0].spec["method"] == each) for each in methods if _has(groups, each)
        }
        several = [n for n, group in enumerate(groups) if len(group) > 1 or most[group[0].spec["method"]] == 1]
        if len(several) > 1:
            title, shown = f"{task}, {_recipe(runs[0])}", [groups[n] for n in several]
            lost = len(runs) - sum(map(len, every)) + sum(len(every[n]) - len(groups[n]) for n in several)
            tables.append(_table(title, shown, what=PARTS, left_out=len(groups) - len(several), of_search=lost))
    if not tables:
        raise KfbenchError(f"no two of {', '.join(methods)} ran on '{task}' with the same recipe; compare keys instead")
    compared = {contender.runs[0].spec["method"] for table in tables for contender in table.contenders}
    for method in methods:
        if method not in compared:
            own = next(_recipe(record) for record in on_task if record.spec["method"] == method)
            warnings.warn(
                f"'{method}' is in no table: no other ran on '{task}' with its recipe ({own}); compare keys instead",
                KfbenchWarning,
                stacklevel=2,
            )
    return tables


PARTS = ("settings", "teachers")  # of a spec, that may tell contenders of one method apart


def _done(results: Path) -> list[RunRecord]:
    from kfbench.reporting import grid

    return [record for record in grid.best_known(records.records(results)).values() if record.status == "done"]


def _but_seed(record: RunRecord) -> str:
    return naming.but_seed(record.spec)


def _recipe(record: RunRecord) -> str:
    recipe = record.spec["recipe"]
    size = count(recipe["train_size"], "image") if recipe.get("train_size") else ""
    long, unit = registry.kind_of(record.spec["task"]).duration(recipe)
    length = "" if unit == "progress" else f"{long:g} {unit}{'s' if long != 1 and not unit.endswith('s') else ''}"
    return ", ".join(filter(None, (recipe["network"], size, length)))


def _has(groups: list[list[RunRecord]], method: str) -> bool:
    return any(group[0].spec["method"] == method for group in groups)


def _table(
    title: str, groups: list[list[RunRecord]], *, what: Sequence[str], left_out: int = 0, of_search: int = 0
) -> Table:
    names = [group[0].spec["method"] for group in groups]
    contenders = []
    for name, group in zip(names, groups, strict=True):
        rivals = [other[0].spec for other in groups if other[0].spec["method"] == name]
        more = naming.differing(group[0].spec, rivals, what) if len(rivals) > 1 else []
        runs = sorted(group, key=lambda record: record.spec["seed"])
        contenders.append(Contender(", ".join([name, *more]), tuple(runs)))
    return Table(title, tuple(contenders), left_out, of_search)


def rows(table: Table) -> list[dict[str, Any]]:
    """Return one row a contender: label, keys, seeds, score with Student's interval, difference to the first's.

    `difference` is the score minus the first's over the pairs that share seed and data, with its interval (`pairs.py`);
    numbers that the runs do not determine are None. `verdict` is "better" or "worse" if the interval is clear of zero,
    "undecided" if it is not, "equal" if every pair is, "no pairs" if there is none.
    """
    from kfbench.reporting import intervals, pairs

    seeds = sorted({record.spec["seed"] for contender in table.contenders for record in contender.runs})
    first, on = table.contenders[0].scores(seeds), table.contenders[0].data()
    found = []
    for index, contender in enumerate(table.contenders):
        scores = contender.scores(seeds)
        is_pair = [[seed in on and contender.data().get(seed) == on[seed]] for seed in seeds]
        own, gap = intervals.mean(scores), pairs.difference(np.where(is_pair, scores, np.nan), first)
        row: dict[str, Any] = {
            "label": contender.label,
            "keys": [record.key for record in contender.runs],
            "seeds": [record.spec["seed"] for record in contender.runs],
            "data": sorted({str(checksum) for checksum in contender.data().values()}),
            "metric": contender.kind.metric,
            "score": _known(own.value),
            "score_interval": _ends(own.low, own.high),
        }
        if index:
            is_good = (gap.value > 0) == contender.kind.higher_is_better
            row |= {
                "pairs": gap.pairs,
                "difference": _known(gap.value),
                "difference_interval": _ends(gap.low, gap.high),
                "verdict": ("better" if is_good else "worse")
                if gap.is_clear
                else "equal"
                if gap.is_equal
                else "undecided"
                if gap.pairs
                else "no pairs",
            }
        found.append(row)
    return found


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _ends(low: float, high: float) -> list[float] | None:
    return None if np.isnan(low) or np.isnan(high) else [float(low), float(high)]


def text(table: Table) -> str:
    """Return the table as lines that fit the terminal; below a name stands what it does not say of a contender.

    Where numbers have no room beside the names they stand below them.
    """
    found = rows(table)
    unit = table.contenders[0].kind.scored
    names, more = zip(("", ""), *map(_split, found), strict=True)
    first = names[1] if names.count(names[1]) == 1 else "the first"
    cells = [("runs", unit, f"minus {first}", "pairs", "")]
    for row in found:
        score = _number(row["score"], row["score_interval"])
        gap = _number(row.get("difference"), row.get("difference_interval"), sign="+")
        cells.append((str(len(row["seeds"])), score, gap, str(row.get("pairs", "")), row.get("verdict", "")))
    widths = [max(len(cell[i]) for cell in cells) for i in range(5)]
    numbers = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    wide = max(map(len, names))
    is_beside = 2 + wide + 2 + max(map(len, numbers)) <= columns()
    lines = [table.title]
    for name, told, line in zip(names, more, numbers, strict=True):
        if is_beside:
            lines += [f"  {name:<{wide}}  {line}", *folded(told, indent=4)]
        else:
            lines += [*folded(", ".join(filter(None, (name, told))), indent=4, first=2), f"    {line}"]
    data = {record.identity.get("data") for contender in table.contenders for record in contender.runs}
    if len(data) > 1:
        lines += folded(f"these runs were made with {len(data)} different versions of the data", indent=2)
    for contender in table.contenders:
        if cut := records.cut(contender.runs):
            lines += folded(f"{contender.label}: {cut}", indent=2)
    if table.left_out:
        lone = count(table.left_out, "single run")
        lines += folded(f"left out: {lone} with other settings; compare their keys to see them", indent=2)
    if table.of_search:
        lost = count(table.of_search, "run")
        lines += folded(f"left out: {lost} with a seed by which searches choose ({FIRST_SEED} or more)", indent=2)
    return "\n".join(lines)


def _split(row: dict[str, Any]) -> tuple[str, str]:
    name, _, more = row["label"].partition(", ")
    return name, more


def _number(value: float | None, ends: list[float] | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}.2f}" + (f" [{ends[0]:{sign}.2f}, {ends[1]:{sign}.2f}]" if ends else "")


def picture(tables: Sequence[Table], out: Path) -> None:
    """Write the learning curves, a panel a table: mean over seeds with Student's pointwise interval.

    The kind of file follows from its name: .png, .svg, .pdf. Raises KfbenchError if it cannot be written.
    """
    from kfbench.reporting import style

    order = list(dict.fromkeys(contender.label for table in tables for contender in table.contenders))
    with style.in_style():
        figure, axes = style.panels(len(tables))
        for table, axis in zip(tables, axes, strict=True):
            _draw(table, axis, order)
            axis.set_title(style.folded(table.title, figure, axis, letter=style.BOLD))
        style.legend(figure, axes)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(out, dpi=200)
        except ValueError as error:
            raise KfbenchError(f"cannot draw '{out}'; give a name that ends in .png, .svg or .pdf") from error
        except OSError as error:
            raise KfbenchError(f"cannot write '{out}' ({error.strerror}); give another place") from error


def _draw(table: Table, axis: Any, order: Sequence[str]) -> None:
    """Draw a table's curves; `order` are the labels of all panels, for one label is one line in the legend."""
    from kfbench.reporting.curve_plots import draw_line, frame

    kind = table.contenders[0].kind
    for contender in table.contenders:
        whole, unit = kind.duration(contender.runs[0].spec["recipe"])  # its own: keys may be of any recipes
        metric = f"val_{kind.metric}"
        points = [
            {round(row["progress"], 6): row[metric] for row in record.curve if metric in row and "progress" in row}
            for record in contender.runs
        ]
        times = sorted({time for each in points for time in each})
        values = np.array([[each.get(time, np.nan) for time in times] for each in points])
        if times:
            draw_line(axis, np.array(times) * whole, values, contender.label, order.index(contender.label))
    axis.set(xlabel=unit, ylabel=f"validation {kind.scored}")
    frame(axis, is_percent=kind.is_percent)
