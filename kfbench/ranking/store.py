"""The teachers of a results folder by their names: candidates where nobody named any."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from kfbench import registry
from kfbench.data.named import whole_of
from kfbench.errors import KfbenchError
from kfbench.folders import packed
from kfbench.kinds import Declared
from kfbench.networks import header
from kfbench.running import budgets, files, identity, records, teacher_names
from kfbench.running.files import record_files
from kfbench.running.records import RunRecord
from kfbench.running.teacher_names import TRAINED_BY, TeacherName
from kfbench.spec import RunSpec, digest
from kfbench.tasks import ImageTask


def names(results: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """Return {name: task} of all teachers in the store whose weights are there, sorted.

    Left out, which `say` tells, are those of data or code that have changed: by their names they are not found.
    """
    folder = files.store(results)
    trained, lost = {}, set()
    for path in record_files(folder):
        if path.with_suffix(".safetensors").is_file():
            record = records.read(path)
            with contextlib.suppress(KfbenchError):  # of a task that is not here
                spec = record.run_spec()
                name = name_of(spec)
                if record.status != "done" or name is None:
                    continue
                if _is_of_today(record, spec):
                    trained[name] = record.spec["task"]
                else:
                    lost.add(name)
    if told := sorted(lost - trained.keys()):
        more = f" and {len(told) - 1:,} more" if len(told) > 1 else ""
        say(f"left out, of older data or code, or of data that are not here: {told[0]}{more}")
    imported = {
        f"imported:{path.stem}": str(header.read(path).get("task", ""))
        for path in files.imported(results).glob("*.safetensors")
    }
    return dict(sorted((trained | imported).items()))


def _is_of_today(record: RunRecord, spec: RunSpec) -> bool:
    try:
        return digest(identity.of(spec, [])) == record.key
    except KfbenchError:  # the data are not here
        return False


def others(task: str, results: Path, say: Callable[[str], None] = lambda line: None) -> list[str]:
    """Return the teachers in the store of the task's kind that were trained on other images than the task's.

    A teacher of the task's own images has seen their labels: it is ranked where it is named. `say` tells what `names`
    leaves out. Raises KfbenchError if there is none.
    """
    declared = registry.load_task(task)
    there = [name for name, trained_on in names(results, say).items() if _other(declared, trained_on)]
    if not there:
        raise KfbenchError(
            f"no teachers of other tasks than '{task}' in '{files.store(results)}'; name some with "
            "--teachers, or make one: kfbench teacher train TASK"
        )
    return there


def _other(task: Declared, name: str) -> bool:
    try:
        trained_on = registry.load_task(name)
    except KfbenchError:
        return False  # a task whose file is gone
    return trained_on.kind == task.kind and not _data(trained_on) & _data(task)


def _data(task: Declared) -> set[str]:
    """Return what a task's images are known by: their data set's name, and the checksum of its pack if it is here.

    One's own images may be packed under two names.
    """
    if not isinstance(task, ImageTask):
        return {str(getattr(task, "dataset", task.name))}
    known = {whole_of(task.dataset)}
    with contextlib.suppress(KfbenchError):  # imported teachers need no data
        known |= {task.checksum()} if task.dataset in packed() else set()
    return known


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
