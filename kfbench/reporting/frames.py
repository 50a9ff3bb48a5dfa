"""Records as pandas frames: a row a run, or a row a point of a learning curve. Imports no torch."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from kfbench.errors import KfbenchError, near
from kfbench.running import records
from kfbench.running.files import store
from kfbench.running.records import RunRecord

WHO = ("key", "status", "method", "task", "budget", "seed", "teachers")
TIMES = ("step", "progress", "epoch", "frames", "seconds")  # of a point of a curve, in their units; progress in 0..1


def runs(results: Path, *, teachers: bool = False) -> pd.DataFrame:
    """Return one row a recorded run, by task and method in the order of their files; failed runs too.

    Columns: key, status, method, task, budget, seed, teachers (joined by commas), error, then flat what the record has:
    `recipe.FIELD`, `settings.NAME`, test scores `last.METRIC` and `best.METRIC`, `val.METRIC`, `cost.NAME`, `commit`,
    `device`, `threads`. A column whose values have several types is text. With `teachers` the rows are the teachers'.
    """
    folder = store(results) if teachers else results
    frame = pd.DataFrame([_row(record) for record in _read(folder)])
    if frame.empty:
        return pd.DataFrame(columns=[*WHO, "error"])
    return frame.apply(_of_one_type)


def _of_one_type(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a column as numbers, truth values or text, which every file format takes."""
    types = {type(value) for value in column.dropna()}
    if types == {bool}:
        return column.astype("boolean")
    if types <= {int, float}:
        return column.astype("float64") if column.hasnans or not types else column
    return column.map(str, na_action="ignore").astype("string")


def curves(results: Path, *, keys: Iterable[str] | None = None, metrics: Iterable[str] | None = None) -> pd.DataFrame:
    """Return learning curves as a long frame, for seaborn: a row a run, point and metric.

    Columns: key, method, task, seed, teachers; step, progress (0..1), epoch or frames, seconds; metric, value. Metrics
    are those of the records' curves (`val_error` in %, `val_return`, `loss`, `share/student`, …); all, or those named.
    `keys` may be beginnings of keys, a run's or a teacher's. Raises KfbenchError for a key that fits none or several,
    or a metric that is in no curve.
    """
    chosen = list(_read(results)) if keys is None else [records.locate(results, key)[1] for key in keys]
    wanted = None if metrics is None else set(metrics)
    there = {name for record in chosen for point in record.curve for name in point if name not in TIMES}
    for metric in sorted((wanted or set()) - there) if there else ():
        raise KfbenchError(f"no curve in '{results}' has the metric '{metric}'; {near(metric, there)}")
    rows = [
        {**_who(record), **{name: point.get(name) for name in TIMES}, "metric": metric, "value": value}
        for record in chosen
        for point in record.curve
        for metric, value in point.items()
        if metric not in TIMES and (wanted is None or metric in wanted)
    ]
    columns = [*(name for name in WHO if name not in ("status", "budget")), *TIMES, "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.drop(columns=[name for name in TIMES if frame[name].isna().all()])


def _read(folder: Path) -> Iterator[RunRecord]:
    return records.records(folder) if folder.is_dir() else iter(())


def _who(record: RunRecord) -> dict[str, Any]:
    row = {"key": record.key, "status": record.status, **record.spec}
    return {name: row[name] for name in WHO} | {"teachers": ",".join(record.spec["teachers"])}


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {**_who(record), "error": record.error}
    for part in ("recipe", "settings"):
        row |= {f"{part}.{name}": _plain(value) for name, value in record.spec[part].items()}
    row |= {f"{which}.{name}": value for which, scores in record.scores.items() for name, value in scores.items()}
    row |= {f"cost.{name}": value for name, value in record.cost.items()}
    return row | {name: record.provenance.get(name) for name in ("commit", "device", "threads")}


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
