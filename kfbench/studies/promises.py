"""What each teacher of a study promises without training, kept in its ranks.json: `rank = true` asks for it.

The report sets it against what the runs measured.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.ranking.names import SCORES
from kfbench.spec import Recipe, RunSpec, digest
from kfbench.studies import kept
from kfbench.studies.definition import Study
from kfbench.studies.plan import Planned
from kfbench.tasks import IMAGES

LEAST = 3  # teachers of one method on one task: fewer have no order to speak of


class Group(NamedTuple):
    """Cells of a column that differ in nothing but their one teacher."""

    method: str
    column: str
    cells: list[Planned]


def groups(cells: Sequence[Planned]) -> list[Group]:
    """Return the groups of at least `LEAST` teachers, in the order of the study's rows and columns."""
    alike: dict[tuple[str, str], list[Planned]] = {}
    for cell in cells:
        if cell.spec is not None and len(cell.spec.teachers) == 1:
            but_teacher = digest({**cell.spec.to_json(), "teachers": []})
            alike.setdefault((cell.column, but_teacher), []).append(cell)
    found = []
    for (column, _), same in alike.items():
        assert same[0].spec is not None
        if len(same) >= LEAST:
            found.append(Group(same[0].spec.method, column, same))
    return found


def require(study: Study, cells: Sequence[Planned]) -> None:
    """Raise KfbenchError if a study asks for ranks and has none to give: nothing is to fail after its runs."""
    if not study.rank:
        return
    if not (there := groups(cells)):
        raise KfbenchError(
            f"study '{study.name}' has 'rank = true', but no method has {LEAST} rows with one teacher each on one task"
        )
    tasks = {column.label: column.task for column in study.tasks}
    for group in there:
        task = registry.load_task(tasks[group.column])
        if task.kind is not IMAGES:
            raise KfbenchError(
                f"study '{study.name}' has 'rank = true', but teachers are ranked for images, and '{task.name}' is of "
                f"{task.kind.name}"
            )


def settle(
    folder: Path, cells: Sequence[Planned], *, results: Path, say: Callable[[str], None] = lambda line: None
) -> None:
    """Work out what is not kept yet of each column's teachers; one that is not made yet is left for later."""
    there = read(folder)
    columns: dict[str, dict[str, RunSpec]] = {}
    for group in groups(cells):
        named = columns.setdefault(group.column, {})
        named |= {cell.spec.teachers[0]: cell.spec for cell in group.cells if cell.spec is not None}
    ranks = {column: _ranked(named, there.get(column, {}), results, say) for column, named in columns.items()}
    if ranks != there:
        kept.write(folder / "ranks.json", ranks)


def _ranked(
    teachers: dict[str, RunSpec], there: dict[str, Any], results: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return {teacher: digests of its weights and of the images, its scores}.

    What is kept of the same weights and images is not worked out again.
    """
    from kfbench.ranking import ranking  # torch
    from kfbench.running import teacher_store

    ranks = {}
    for name, spec in teachers.items():
        try:
            of = {
                "weights": teacher_store.find(name, spec=spec, index=0, results=results).digest,
                "images": _images(spec),
            }
        except KfbenchError:  # not made yet, or no longer there
            if name in there:
                ranks[name] = there[name]
            continue
        known = there.get(name, {})
        ranks[name] = known if of.items() <= known.items() else of
    new = [name for name in ranks if "scores" not in ranks[name]]
    try:
        rows = ranking.rank(teachers[new[0]], new, results=results, say=say) if new else []
    except KfbenchError as error:  # the runs are made: their report is not to miss for it
        say(f"teachers are not ranked: {error}")
        return {name: values for name, values in ranks.items() if name not in new}
    for row in rows:
        ranks[row.teacher]["scores"] = {name: round(value, 6) for name, value in row.scores.items()}
    return ranks


def _images(spec: RunSpec) -> str:
    """Return the digest of what a run's teachers are ranked on. Raises KfbenchError if the data are not here."""
    data = registry.load_task(spec.task).checksum()
    return digest({"task": spec.task, "data": data, "train_size": Recipe.of(spec).train_size})


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {column: {teacher: its `weights`, `images` and `scores`}}; empty if there are none.

    Raises KfbenchError if they cannot be read.
    """
    path, again = folder / "ranks.json", "teachers are ranked again"
    ranks = kept.read(path, again)
    for column, teachers in ranks.items():
        for name, values in teachers.items() if isinstance(teachers, dict) else [("", None)]:
            if not isinstance(values, dict) or set(values.get("scores", {})) != set(SCORES):
                raise KfbenchError(f"'{path}' lacks scores of {column}, '{name}'; delete it, and {again}")
    return ranks
