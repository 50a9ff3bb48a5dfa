"""A study with its records: the grid of cells that tables, plots and claims read. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfbench import registry
from kfbench.kinds import Kind
from kfbench.reporting.render import count, listed
from kfbench.running import records as run_records
from kfbench.running.files import record_files
from kfbench.running.records import RunRecord
from kfbench.spec import digest
from kfbench.studies import plan, promises
from kfbench.studies.definition import Study
from kfbench.studies.plan import Planned

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A method on a task: its plan, and a record (or None) for each seed of the study."""

    planned: Planned
    records: tuple[RunRecord | None, ...]

    @property
    def done(self) -> list[RunRecord]:
        """The records of runs that ended well."""
        return [record for record in self.records if record is not None and record.status == "done"]

    @property
    def failed(self) -> list[RunRecord]:
        """The records of runs that failed."""
        return [record for record in self.records if record is not None and record.status != "done"]

    @property
    def missing(self) -> int:
        """How many runs have not been made."""
        return sum(record is None for record in self.records)

    def scores(self, which: str, metric: str) -> Array:
        """Return one score a seed [N], NaN where the run is missing or failed."""
        return np.array([_score(record, which, metric) for record in self.records])

    def cost(self, name: str) -> float:
        """Return the mean of a cost over the runs that are done; NaN if none states it."""
        stated = [record.cost[name] for record in self.done if name in record.cost]
        return float(np.mean(stated)) if stated else np.nan


def _score(record: RunRecord | None, which: str, metric: str) -> float:
    if record is None or record.status != "done":
        return np.nan
    return record.scores.get(which, {}).get(metric, np.nan)


@dataclass(frozen=True)
class Grid:
    """All cells of a study; rows and columns in the order of `study.toml`."""

    study: Study
    cells: dict[tuple[str, str], Cell]
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict)  # what teachers promise, see `promises.read`
    folder: Path | None = None  # where the study lies; None: in `reports`
    results: Path | None = None  # where its records lie; None: in `results`

    @property
    def place(self) -> str:
        """The study's folder as commands name it: from the checkout's root where it lies in a `reports` folder."""
        if self.folder is None or self.folder.resolve().parent.name == "reports":
            return f"reports/{self.study.name}"
        return str(self.folder)

    @property
    def source(self) -> list[str]:
        """What commands add where the records lie in no folder called `results`."""
        is_usual = self.results is None or self.results.resolve().name == "results"
        return [] if is_usual else ["--results", str(self.results)]

    @cached_property
    def rows(self) -> list[str]:
        """Labels of the rows."""
        return [row.label for row in self.study.methods]

    @cached_property
    def columns(self) -> list[str]:
        """Labels of the columns."""
        return [column.label for column in self.study.tasks]

    def kind(self, column: str) -> Kind:
        """The kind of a column's task: what its score is called, in which unit, and whether a higher one is better."""
        return registry.kind_of(self.task(column))

    def metric(self, column: str) -> str:
        """Name of a column's score: `error` in %, `return` in game points."""
        return self.kind(column).metric

    def curve_metric(self, column: str) -> str:
        """Name of a column's validation score in a curve."""
        return f"val_{self.metric(column)}"

    def curve(self, row: str, column: str, metric: str) -> tuple[Array, Array]:
        """Return progress [T], 0..1, and a metric of the curves [N seeds, T]; NaN where no finished run states it."""
        cell = self.cells.get((row, column))
        curves: list[dict[float, float]] = [
            {round(r["progress"], 6): r[metric] for r in record.curve if metric in r and "progress" in r}
            if record is not None and record.status == "done"
            else {}
            for record in (cell.records if cell else ())
        ]
        times = sorted({time for points in curves for time in points})
        values = np.array([[points.get(time, np.nan) for time in times] for points in curves])
        return np.array(times), values.reshape(len(curves), len(times))

    def sign(self, column: str) -> int:
        """+1 if a higher score is better, -1 if a lower one is."""
        return 1 if self.kind(column).higher_is_better else -1

    def scores(self, row: str, columns: Sequence[str]) -> Array:
        """Return raw scores [N seeds, M columns]; NaN where there is no cell or no finished run."""
        empty = np.full(len(self.study.seeds), np.nan)
        scores = []
        for column in columns:
            cell = self.cells.get((row, column))
            ready = cell is not None and cell.records
            scores.append(cell.scores(self.study.score, self.metric(column)) if cell and ready else empty)
        return np.stack(scores, axis=1) if scores else np.empty((len(empty), 0))

    def better(self, row: str, columns: Sequence[str]) -> Array:
        """Return scores [N, M] turned so that higher is better, in the table's unit."""
        signs = np.array([self.sign(column) for column in columns], float)
        return np.asarray(self.scores(row, columns) * signs)

    def normalised(self, row: str, columns: Sequence[str]) -> Array:
        """Return scores on the scale that tasks share, [N, M]: accuracy as a fraction, human-normalised returns.

        NaN for tasks that have no such scale, as games without a reference.
        """
        raw = self.scores(row, columns)
        for m, column in enumerate(columns):
            raw[:, m] = self.normal(column, raw[:, m])
        return raw

    def normal(self, column: str, scores: Array) -> Array:
        """Return raw scores of a column, of any shape, on the scale that tasks share."""
        task = self.task(column)
        normal = [registry.normalised(task, float(score)) for score in scores.flat]
        return np.array([np.nan if value is None else value for value in normal], float).reshape(scores.shape)

    @cached_property
    def scaled(self) -> list[str]:
        """Labels of the columns whose scores have a place on the scale that tasks share."""
        return [column for column in self.columns if registry.normalised(self.task(column), 0.0) is not None]

    def unscaled(self, columns: Sequence[str]) -> str:
        """Say which of these columns have no such place: "Carnival has no human-normalised score"; nothing if all have.

        Columns of several kinds are told apart.
        """
        lacking: dict[str, list[str]] = {}
        for column in columns:
            if column not in self.scaled:
                lacking.setdefault(self.kind(column).scale, []).append(column)
        return ", ".join(
            f"{listed(labels)} {'has' if len(labels) == 1 else 'have'} no {scale}" for scale, labels in lacking.items()
        )

    def overall(self, row: str) -> Array:
        """Return the scores by which rows are compared over all columns, [N, M], higher being better.

        Hundredths on the scale that tasks share, NaN for a column without it; of a lone column without it, its own.
        """
        return self.better(row, self.columns) if self.is_raw else 100 * self.normalised(row, self.columns)

    @property
    def is_raw(self) -> bool:
        """True if there is one column, and its scores have no place on the scale that tasks share."""
        return len(self.columns) == 1 and not self.scaled

    def task(self, column: str) -> str:
        """Return the task of a column."""
        return next(c.task for c in self.study.tasks if c.label == column)

    def lack(self, row: str, columns: Sequence[str]) -> str:
        """Say how many of a row's runs on these columns there are; nothing if all are, or none."""
        cells = [self.cells[row, column] for column in columns if (row, column) in self.cells]
        done, planned = sum(len(cell.done) for cell in cells), sum(len(cell.records) for cell in cells)
        return f"{done} of {count(planned, 'run')}" if 0 < done < planned else ""

    def done(self) -> list[RunRecord]:
        """Return every finished record once, by cell and seed."""
        return list({record.key: record for cell in self.cells.values() for record in cell.done}.values())

    def failed(self) -> list[RunRecord]:
        """Return every record of a failed run once."""
        return list({record.key: record for cell in self.cells.values() for record in cell.failed}.values())

    @cached_property
    def planned(self) -> int:
        """How many runs are planned; cells that share a run share its count."""
        runs = [spec for cell in self.cells.values() for spec in cell.planned.runs(self.study.seeds)]
        return len({digest(spec.to_json()) for spec in runs})

    def mixed(self) -> list[str]:
        """Return what is compared here but was made with other data or teachers, a sentence each; usually none."""
        found = []
        for column in self.columns:
            data = {record.identity.get("data") for row in self.rows for record in self._done(row, column)}
            if len(data) > 1:
                found.append(f"The runs of {column} were made with {len(data)} different versions of its data.")
            every = [record for row in self.rows for record in self._done(row, column)]
            if len({record.identity.get("harness_revision") for record in every}) > 1:
                found.append(f"The runs of {column} were made by different revisions of kfbench.")
            teachers = {
                pair for r in every for pair in zip(r.spec["teachers"], r.identity.get("teachers", []), strict=False)
            }
            if len({name for name, _ in teachers}) < len(teachers):
                found.append(f"Runs of {column} had different weights of teachers with one name.")
        for row, column in self.cells:
            used = {digest({**r.identity, "spec": None, "data": None}) for r in self._done(row, column)}
            if len(used) > 1:
                found.append(f"The seeds of {row} on {column} had different teachers, or code.")
        return [f"{sentence} `kfbench study` makes those anew that are not of today." for sentence in found]

    def _done(self, row: str, column: str) -> list[RunRecord]:
        return self.cells[row, column].done if (row, column) in self.cells else []


def load(folder: Path, study: Study, results: Path) -> Grid:
    """Join a study's plan with the records there are. Raises KfbenchError for a plan or record not to be trusted."""
    paths = record_files(results)
    changed = tuple(path.stat().st_mtime_ns for path in paths)
    found = _read(tuple(paths), changed)
    return join(study, plan.read(folder, study), found, promises.read(folder) if study.rank else {}, folder, results)


@lru_cache(maxsize=1)
def _read(paths: tuple[Path, ...], _changed: tuple[int, ...]) -> tuple[RunRecord, ...]:
    """Read records once for all studies of an index."""
    return tuple(run_records.read(path) for path in paths)


def join(
    study: Study,
    planned: list[Planned],
    records: Sequence[RunRecord],
    ranks: dict[str, dict[str, Any]] | None = None,
    folder: Path | None = None,
    results: Path | None = None,
) -> Grid:
    """Give each cell the records of its specs; see `best_known`."""
    by_spec, cells = best_known(records), {}
    for cell in planned:
        wanted = [by_spec.get(digest(spec.to_json())) for spec in cell.runs(study.seeds)]
        cells[cell.row, cell.column] = Cell(cell, tuple(wanted))
    return Grid(study, cells, ranks or {}, folder, results)


def best_known(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Return {digest of a spec: its record}: a spec has several where data, teachers or code have changed."""
    return {digest(record.spec): record for record in sorted(records, key=_rank)}


def _rank(record: RunRecord) -> tuple[bool, tuple[int, ...], str, str]:
    """Order records of one spec: finished before failed, newer revisions of the code before older, then by time."""
    revisions = {
        name: value for name, value in record.identity.items() if "revision" in name and isinstance(value, int)
    }
    made = record.provenance.get("made", "")  # not in the first records
    return record.status == "done", tuple(value for _, value in sorted(revisions.items())), made, record.key
