"""The teachers of a results folder by their names: candidates where nobody named any."""

import contextlib
import dataclasses
from pathlib import Path

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.kinds import Declared
from kfbench.networks import header
from kfbench.running import budgets, records, teacher_names, teacher_store
from kfbench.running.files import record_files
from kfbench.running.teacher_names import TRAINED_BY, TeacherName
from kfbench.spec import RunSpec


def names(results: Path) -> dict[str, str]:
    """Return {name: task} of all teachers in the store whose weights are there, sorted."""
    folder = teacher_store.folder(results)
    trained = {}
    for path in record_files(folder):
        if path.with_suffix(".safetensors").is_file():
            record = records.read(path)
            with contextlib.suppress(KfbenchError):  # of a task that is not here
                name = name_of(record.run_spec())
                if record.status == "done" and name is not None:
                    trained[name] = record.spec["task"]
    imported = {
        f"imported:{path.stem}": str(header.read(path).get("task", ""))
        for path in (folder / "imported").glob("*.safetensors")
    }
    return dict(sorted((trained | imported).items()))


def others(task: str, results: Path) -> list[str]:
    """Return the teachers in the store of the task's kind that were trained on other data than the task's.

    A teacher of the task's own data has seen its labels: it is ranked where it is named. Raises KfbenchError if there
    is none.
    """
    declared = registry.load_task(task)
    there = [name for name, trained_on in names(results).items() if _other(declared, trained_on)]
    if not there:
        raise KfbenchError(
            f"no teachers of other tasks than '{task}' in '{teacher_store.folder(results)}'; name some with "
            "--teachers, or make one: kfbench teacher train TASK"
        )
    return there


def _other(task: Declared, name: str) -> bool:
    try:
        trained_on = registry.load_task(name)
    except KfbenchError:
        return False  # a task whose file is gone
    return trained_on.kind == task.kind and _data(trained_on) != _data(task)


def _data(task: Declared) -> str:
    return str(getattr(task, "dataset", task.name))


def name_of(spec: RunSpec) -> str | None:
    """Return the name that a teacher's spec is read from; None if no name gives it."""
    task = registry.load_task(spec.task)
    usual = dataclasses.asdict(budgets.recipe(task, spec.budget, {"network": spec.recipe.network}))
    differs = {field: value for field, value in dataclasses.asdict(spec.recipe).items() if usual[field] != value}
    changed = teacher_names.changed(task, spec.recipe.network, spec.budget, differs)
    name = str(TeacherName("trained", "", task.name, spec.recipe.network, spec.budget, changed))
    try:
        told = teacher_names.read(name, budget=spec.budget).spec()
    except KfbenchError:
        return None
    return name if spec.method == TRAINED_BY and told == spec else None
