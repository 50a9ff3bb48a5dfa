"""The runs of a study: every cell's spec with nothing left open, or why it cannot be; kept in the study's plan.json.

The plan is what lets a report be made without torch: it says which specs a cell holds, the records say what came out.
"""

import dataclasses
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.ranking.names import is_asked
from kfbench.running.files import write_text
from kfbench.spec import RunSpec, Setting, digest
from kfbench.studies import kept
from kfbench.studies.definition import Column, Need, Row, Study

if TYPE_CHECKING:
    from kfbench.methods import Method


@dataclass(frozen=True)
class Planned:
    """A cell of the study's table: the spec of its first seed, or the reason why there is none."""

    row: str
    column: str
    spec: RunSpec | None
    reason: str = ""
    chosen: dict[str, Any] | None = None  # how its teachers were chosen, where the study does not name them

    def runs(self, seeds: list[int]) -> list[RunSpec]:
        """Return the specs of the cell, one a seed."""
        return [] if self.spec is None else [dataclasses.replace(self.spec, seed=seed) for seed in seeds]


def make(
    study: Study,
    tuned: Mapping[str, Mapping[str, Setting]] | None = None,
    picked: Mapping[str, dict[str, Any]] | None = None,
    *,
    results: Path | None = None,
    done: Container[str] | None = None,
) -> list[Planned]:
    """Resolve every cell, with the settings that a search chose for a row unless the row states its own.

    `picked` are the teachers chosen for cells that ask for the best, as `picks.settle` gives them. With `results` the
    teachers that lie there, or in a file, are looked at; else only the names of teachers tell whether they suit. With
    `done`, the digests of recorded specs, the student of a cell that lacks a run is made beside untrained teachers.

    A pair that cannot work is kept with its reason; anything misspelt raises KfbenchError.
    """
    from kfbench.running import prepare, resolve, stand_in, teacher_names  # torch

    for column in study.tasks:
        registry.load_task(column.task)
    methods = {row.label: registry.load_method(row.method, dict(row.settings)) for row in study.methods}
    cells = []
    for row in study.methods:
        for column in study.tasks:
            if row.columns and column.label not in row.columns:
                continue
            budget = study.budget
            recipe = recipe_of(study, row, column)
            resolve.resolve("scratch", column.task, budget=budget, recipe=recipe)  # a wrong recipe is no "n/a"
            named = asked(row, column, methods[row.label])
            for text in [] if named is None or is_asked(named) else named:
                teacher_names.read(text, budget=budget)  # nor is a misspelt teacher
            try:
                choice = (picked or {}).get(cell_name(row, column))
                teachers = _teachers(study, row, column, methods[row.label], choice)
                if results is not None and teachers:
                    teachers = [_whole(name, results) for name in teachers]
                spec = resolve.resolve(
                    row.method,
                    column.task,
                    budget=budget,
                    teachers=teachers,
                    seed=study.seeds[0],
                    recipe=recipe,
                    settings={**(tuned or {}).get(row.label, {}), **row.settings},
                )
                if results is not None:
                    prepare.require_suited(spec, results=results)
                cell = Planned(row.label, column.label, spec, chosen=choice)
                lacks = done is not None and any(digest(r.to_json()) not in done for r in cell.runs(study.seeds))
                if results is not None and lacks:
                    stand_in.require_student(spec, results=results)
                cells.append(cell)
            except KfbenchError as error:
                cells.append(Planned(row.label, column.label, None, str(error)))
    return cells


def _whole(name: str, results: Path) -> str:
    """Return a teacher's name with all of its run's key, where that run is here."""
    from kfbench.running import teacher_store  # torch

    try:
        return teacher_store.whole(name, results)
    except KfbenchError:  # is told when the run is to begin
        return name


def cell_name(row: Row, column: Column) -> str:
    """Return what a cell is called: its row's label and its column's."""
    return f"{row.label} · {column.label}"


def recipe_of(study: Study, row: Row, column: Column) -> dict[str, Any]:
    own = {"network": column.network, "train_size": column.train_size}
    stated = {name: None if value == "all" else value for name, value in own.items() if value is not None}
    return {**study.recipe, **stated, **column.recipe, **row.recipe}


def _teachers(
    study: Study, row: Row, column: Column, method: "Method", choice: Mapping[str, Any] | None
) -> list[str] | None:
    """Return the teachers of a cell; None where they follow from what the method needs."""
    from kfbench.running import resolve  # torch

    named = asked(row, column, method)
    if choice is not None and is_asked(named):
        named = list(choice["teachers"])
    if row.teachers != "random" or named == []:
        return named
    if named is None:
        recipe = recipe_of(study, row, column)
        found = resolve.resolve(row.method, column.task, budget=study.budget, recipe=recipe, settings=row.settings)
        named = list(found.teachers)
    return [f"random:{name.removeprefix('random:')}" for name in named]


def asked(row: Row, column: Column, method: "Method") -> list[str] | None:
    """Return the teachers that a cell names, as the study writes them; None if it names none."""
    instead = registry.split(row.method)[1] in method.instead_of_teachers  # the teachers of "features" are its cost
    if method.teachers == (0, 0) and not instead:
        return []
    if isinstance(row.teachers, list):
        return row.teachers
    by_need = column.teachers
    need = "features" if instead else cast(Need, method.needs)
    return (None if method.teacher_is_twin else by_need.get(need)) if isinstance(by_need, dict) else by_need


def chosen(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the study's searches chose, {row: {"settings", "validation", …}}; empty if none has been made."""
    return kept.read(folder / "tuned.json", "the next kfbench study takes the best of its searches again")


def write_chosen(folder: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep what the study's searches chose."""
    kept.write(folder / "tuned.json", found)


def tuned(folder: Path, study: Study) -> dict[str, dict[str, Setting]]:
    """Return {row: settings} that searches of this study chose; empty where it asks for none any more."""
    return {} if study.search is None else {row: values["settings"] for row, values in chosen(folder).items()}


def write(folder: Path, study: Study, cells: list[Planned]) -> Path:
    """Write `plan.json` into the study's folder."""
    path = folder / "plan.json"
    rows = [
        {"row": cell.row, "column": cell.column, "reason": cell.reason, "spec": cell.spec and cell.spec.to_json()}
        for cell in cells
    ]
    write_text(path, json.dumps({"study": _grid_digest(study), "cells": rows}, indent=1) + "\n")
    return path


def read(folder: Path, study: Study) -> list[Planned]:
    """Read `plan.json`. Raises KfbenchError if it is missing, or older than the grid in `study.toml`."""
    path = folder / "plan.json"
    remedy = f"make it: kfbench study {folder} --dry-run"
    try:
        noted = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise KfbenchError(f"study '{study.name}' has no plan '{path}'; {remedy}") from error
    except ValueError as error:
        raise KfbenchError(f"'{path}' is not JSON ({error}); {remedy}") from error
    if not isinstance(noted, dict) or not isinstance(noted.get("cells"), list):
        raise KfbenchError(f"'{path}' is no plan; {remedy}")
    if noted.get("study") != _grid_digest(study):
        raise KfbenchError(f"'{path}' is older than the rows and columns of '{folder / 'study.toml'}'; {remedy}")
    return [
        Planned(cell["row"], cell["column"], cell["spec"] and registry.read_spec(cell["spec"]), cell["reason"])
        for cell in noted["cells"]
    ]


def _grid_digest(study: Study) -> str:
    """Digest what decides the runs and the cells: claims and published numbers may change without a new plan."""
    keys = {"budget", "methods", "tasks", "recipe"} | ({"search"} if study.search is not None else set())
    return digest({"seed": study.seeds[0], **json.loads(study.model_dump_json(include=keys))})
