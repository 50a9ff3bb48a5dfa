"""Teachers that a study asks for as `best:K`: chosen once for each cell, and kept in its teachers.json.

A store that has grown since then changes no study; delete the file, or its part, to choose anew.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.ranking.names import is_asked
from kfbench.studies import kept, plan
from kfbench.studies.definition import Column, Row, Study


def settle(
    folder: Path, study: Study, *, results: Path, say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Any]]:
    """Return {cell: its choice} of every cell that asks for the best, chosen now where that has not been done.

    A choice has the `teachers`, and what a record says: what was asked, the score, its value for each candidate.
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
            known = there.get(cell, {})
            new = known.get("asked") != ",".join(names)
            choice = _choose(study, row, column, names, results, say) if new else known
            if choice is not None:
                picked[cell] = choice
    if picked != there:
        kept.write(folder / "teachers.json", picked)
    return picked


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the choices that a study keeps; empty if none has been made. Raises KfbenchError if it is not JSON."""
    return kept.read(folder / "teachers.json", "teachers are chosen again")


def _choose(
    study: Study, row: Row, column: Column, names: Sequence[str], results: Path, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the choice for a cell; None if its method and task do not go together, which the plan will say."""
    from kfbench.ranking import best  # torch
    from kfbench.running import resolve

    recipe = plan.recipe_of(study, row, column)
    try:
        student = resolve.student_of(row.method, column.task, budget=study.budget, recipe=recipe, settings=row.settings)
    except KfbenchError:
        return None
    choice = best.choose(names, student, budget=study.budget, results=results, say=say)
    return {"teachers": choice.teachers, **choice.told}
