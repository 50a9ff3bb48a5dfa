"""The runs of a study as its page lists them: a cell's runs with score, curve, record and what is missing."""

import json
import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kfbench.reporting import tables
from kfbench.reporting.cost_table import machine
from kfbench.reporting.grid import Cell, Grid
from kfbench.reporting.render import count
from kfbench.running.records import RunRecord, path_of

NAMED = 3  # commits that a line has by name


def cell(grid: Grid, runs: Cell, folder: Path, results: Path) -> dict[str, Any]:
    """Return what the page says of a cell and its runs."""
    planned = runs.planned
    parts = [f"{len(runs.done)} done"]
    parts += [f"{len(runs.failed)} failed"] if runs.failed else []
    parts += [f"{runs.missing} not run yet"] if runs.missing else []
    listed = [_run(grid, planned.column, record, folder, results) for record in runs.records if record is not None]
    return {
        "row": planned.row,
        "column": planned.column,
        "told": ", ".join(parts) if planned.spec else f"n/a, because {planned.reason}",
        "command": tables.fill(grid, planned.row, planned.column) if runs.missing or runs.failed else "",
        "runs": listed,
    }


def _run(grid: Grid, column: str, record: RunRecord, folder: Path, results: Path) -> dict[str, Any]:
    metric = grid.metric(column)
    score = record.scores.get(grid.study.score, {}).get(metric)
    unit, is_failed = " %" if grid.kind(column).is_percent else "", record.status != "done"
    long = {"curve", "traceback", "identity"}
    path = path_of(results, record.key, record.spec)
    return {
        "seed": record.spec["seed"],
        "key": record.key,
        "score": record.status if is_failed else "no score" if score is None else f"{score:.1f}{unit}",
        "time": f"{record.cost['seconds']:.0f} s" if "seconds" in record.cost and not is_failed else record.error or "",
        "curve": _spark(record, grid.curve_metric(column)),
        "path": Path(os.path.relpath(path, folder)).as_posix(),
        "traceback": record.traceback,
        "record": json.dumps(record.model_dump(exclude=long), indent=1),
    }


def _spark(record: RunRecord, metric: str) -> Markup:
    """Draw a run's curve in the size of a word."""
    points = [(row["progress"], row[metric]) for row in record.curve if metric in row and "progress" in row]
    if len(points) < 2:
        return Markup("")
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    places = " ".join(f"{100 * x:.1f},{24 - 22 * (y - low) / span:.1f}" for x, y in points)
    return Markup(
        '<svg viewBox="0 0 100 26" preserveAspectRatio="none" role="img" aria-label="curve of the run">'
        f'<polyline points="{places}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def places(done: list[RunRecord]) -> list[str]:
    """Say on what hardware and with which versions the runs were made, each kind once with its runs and commits."""
    groups: dict[str, list[RunRecord]] = {}
    for record in done:
        versions = sorted(record.provenance.get("versions", {}).items())
        told = [machine(record), ", ".join(f"{name} {version}" for name, version in versions)]
        groups.setdefault("; ".join(filter(None, told)), []).append(record)
    return [f"{count(len(runs), 'run')}: {told}{_code(runs)}." for told, runs in sorted(groups.items())]


def _code(runs: list[RunRecord]) -> str:
    """Say from which commits runs come; of many their number, as each record has its own."""
    commits = sorted({run.provenance["commit"][:12] for run in runs if run.provenance.get("commit")})
    changed = sum(bool(run.provenance.get("code_changed")) for run in runs)
    named = f"; commit {', '.join(commits)}" if commits else ""
    text = named if len(commits) <= NAMED else f"; {count(len(commits), 'commit')}, which the records name"
    return text + (f"; {count(changed, 'run')} with changes not committed" if changed else "")
