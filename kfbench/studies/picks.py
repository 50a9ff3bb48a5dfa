"""Teachers that a study asks for as `best:K`: chosen once for each cell, and kept in its teachers.json.

A store that has grown since then changes no study; delete the file, or its part, to choose anew. A cell with another
task, method, recipe or budget, or other data, has another choice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.ranking import best
from kfbench.ranking.names import is_asked
from kfbench.running import resolve
from kfbench.running.suitability import Student
from kfbench.spec import digest
from kfbench.studies import kept, plan
from kfbench.studies.definition import Column, Row, Study


def settle(
    folder: Path, study: Study, *, results: Path, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Any]]:
    """Return {cell: its choice} of every cell that asks for the best, chosen now where that has not been done.

    A choice has the `teachers`, and what a record says: what was asked, a digest of the cell, the score, its value for
    each candidate.
    Raises KfbenchError if too few teachers of the store suit, or a named candidate is not there.
    """
    there = read(folder)
    picked = {}
    for row in study.methods:
        method = registry.load_method(row.method, dict(row.settings))
        for column in study.tasks:
            names = plan.asked(row, column, method)
            if not is_asked(names) or (row.columns and column.label not in row.columns):
                continue
            cell = plan.cell_name(row, column)
            if (student := _student(study, row, column)) is None:
                continue
            known, of = there.get(cell, {}), _digest(student, study.budget)
            if known.get("asked") == ",".join(names) and of in ("", known.get("cell")):
                picked[cell] = known
            else:
                choice = best.choose(names, student, budget=study.budget, results=results, say=say)
                picked[cell] = {"teachers": choice.teachers, "cell": of, **choice.told}
    if picked != there:
        kept.write(folder / "teachers.json", picked)
    return picked


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the choices that a study keeps; empty if none has been made. Raises KfbenchError if it is not JSON."""
    return kept.read(folder / "teachers.json", "teachers are chosen again")


def _student(study: Study, row: Row, column: Column) -> Student | None:
    """Return whom a cell's teachers are for; None if method and task do not go together, which the plan will say."""
    recipe = plan.recipe_of(study, row, column)
    try:
        return resolve.student_of(row.method, column.task, budget=study.budget, recipe=recipe, settings=row.settings)
    except KfbenchError:
        return None


def _digest(student: Student, budget: str) -> str:
    """Return the digest of whom a choice is for; "" if the data are not on this machine."""
    try:
        data = student.task.checksum()
    except KfbenchError:
        return ""
    return digest({"spec": best.spec_of(student, budget).to_json(), "data": data})
