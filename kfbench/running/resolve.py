"""From what a user typed to a RunSpec with nothing left open: defaults filled in, impossible pairs refused."""

import dataclasses
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.kinds import Declared
from kfbench.methods import Method
from kfbench.running import budgets, equal_cost, suitability, teacher_names
from kfbench.running.suitability import Candidate, Student
from kfbench.running.teacher_names import TeacherName, outline
from kfbench.spec import MOST_SEED, GameRecipe, RunSpec, Setting

OF_THE_STUDENT = ("network", "precision", "views")  # fields of its recipe that do not go over to a default teacher


def resolve(
    method: str,
    task: str,
    *,
    budget: str = "small",
    teachers: Sequence[str] | None = None,
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> RunSpec:
    """Return the full spec of a run. Raises KfbenchError for anything unknown, or a pair that cannot work."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed <= MOST_SEED:
        raise KfbenchError(f"the seed of a run cannot be {seed!r}; give a whole number from 0, below 2**63")
    changes = dict(recipe or {})
    method = registry.named(method)
    student = student_of(method, task, budget=budget, recipe=changes, settings=settings)
    chosen, declared, full = student.method, student.task, student.recipe
    named = None if teachers is None else [teacher_names.read(text, budget=budget) for text in teachers if text]
    if registry.split(method)[1] in chosen.instead_of_teachers:
        spared = _sources(declared, budget) if named is None else named
        full, names = equal_cost.longer(declared, full, spared), []
    else:
        names = _default_teachers(student, budget, changes) if named is None else named
    _require_number(student, names)
    for name in names:
        suitability.require(student, candidate(student, name))
    return RunSpec(
        method=method,
        task=declared.name,
        budget=budget,
        teachers=tuple(str(name) for name in names),
        seed=int(seed),
        recipe=full,
        settings=_with_sources(student, names).settings(),
    )


def student_of(
    method: str,
    task: str,
    *,
    budget: str,
    recipe: Mapping[str, Any] | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Student:
    """Return whom a run's teachers are for. Raises KfbenchError for anything unknown, or a pair that cannot work."""
    made, declared = registry.method_class(method), registry.load_task(task)
    kind = declared.kind.name
    if not made.serves(kind):
        raise KfbenchError(f"method '{method}' is for {' and '.join(made.kinds)}, task '{task}' is of {kind}")
    full = budgets.recipe(declared, budget, recipe)
    if isinstance(full, GameRecipe) and full.overlap and not made.acts_ahead:
        raise KfbenchError(f"method '{method}' cannot play ahead of its learning; use --set-recipe overlap=0")
    chosen = registry.load_method(method, dict(settings or {}), optimizer=full.optimizer)
    return Student(chosen, method, declared, full, outline(declared, full.network))


def candidate(student: Student, name: TeacherName) -> Candidate:
    """Return what a teacher's name tells of it."""
    if not name.task:  # run:KEY, file:PATH, a library's
        return Candidate(str(name))
    task = registry.load_task(name.task)
    body = outline(task, name.network) if student.method.needs == "architecture" else None  # its sizes count
    return Candidate(str(name), task, name.spec().recipe, name.network, body)


def _sources(task: Declared, budget: str) -> list[TeacherName]:
    return [teacher_names.read(source, budget=budget) for source in task.sources]


def _default_teachers(student: Student, budget: str, changes: Mapping[str, Any]) -> list[TeacherName]:
    method, task, network = student.method, student.task, student.recipe.network
    fewest, most = method.teachers
    if fewest == 0:
        return []
    if method.needs == "outputs":  # the same task, a larger network (and the student's), as many labels as the student
        same = {name: value for name, value in changes.items() if name not in OF_THE_STUDENT}
        others = [] if method.teacher_is_twin else [budgets.teacher_network(task, budget)]
        networks = list(dict.fromkeys([*others, network]))[:fewest]
        if len(networks) < fewest:
            raise KfbenchError(
                f"method '{student.name}' needs {fewest} teachers that differ, but the default ones for '{task.name}' "
                f"are both of the student's network, '{network}'; give --teachers {task.name}/NETWORK,{task.name}/OTHER"
            )
        return [
            TeacherName("trained", "", task.name, each, budget, teacher_names.changed(task, each, budget, same))
            for each in networks
        ]
    sources = _sources(task, budget)
    if method.needs == "architecture" or method.starts_from_teacher:
        sources = [dataclasses.replace(source, network=network) for source in sources]
    return sources[:most]


def _require_number(student: Student, teachers: Sequence[TeacherName]) -> None:
    """Raise KfbenchError if the method takes more or fewer teachers."""
    fewest, most = student.method.teachers
    if len(teachers) < fewest:
        many = "a teacher" if fewest == 1 else f"{fewest} teachers"
        none = "" if student.task.sources else ", which has no default ones"
        like, *others = student.task.kind.teachers or (student.task.kind.example,)
        if student.method.needs == "architecture":
            network = student.recipe.network
            own = f"{network.removesuffix(':pretrained')}:pretrained" if ":" in network else f"{like}/{network}"
            give = f"give one of the student's network: --teachers {own}, run:KEY, imported:NAME or file:PATH"
        else:
            named = ", ".join(["run:KEY", "imported:NAME", "file:PATH", *others])
            give = f"give --teachers TASK[,TASK…], as {like}, or {named}"
        raise KfbenchError(f"method '{student.name}' needs {many} for task '{student.task.name}'{none}; {give}")
    if most is not None and len(teachers) > most:
        takes = f"takes {most} teacher(s), not {len(teachers)}" if most else "takes no teachers"
        raise KfbenchError(f"method '{student.name}' {takes}; leave --teachers {'shorter' if most else 'out'}")


def _with_sources(student: Student, teachers: Sequence[TeacherName]) -> Method:
    """Return the method with its setting `source`, if it has one: the tasks to train on first, by their own names.

    Raises KfbenchError if there is none, or one is of another kind or, where there are teachers, the task of none.
    """
    method, task = student.method, student.task
    if getattr(method, "source", None) == "":
        sources = list(dict.fromkeys(name.task for name in teachers)) or list(task.sources[:1])
        if not all(sources) or not sources:
            raise KfbenchError(f"method '{student.name}' needs a task to train on first; give --set source=TASK")
        method = dataclasses.replace(method, source="+".join(sources))  # type: ignore[call-arg]
    declared = [registry.load_task(source) for source in filter(None, getattr(method, "source", "").split("+"))]
    taught = {name.task for name in teachers}  # "": not known yet
    for source in declared:
        if source.kind != task.kind:
            raise KfbenchError(f"source '{source.name}' is not a task of {task.kind.name}, as '{task.name}' is")
        if taught and "" not in taught and source.name not in taught:
            raise KfbenchError(f"source '{source.name}' is the task of no teacher; give --teachers {source.name}")
    if declared:  # "atari/river_raid" is "atari/riverraid"
        method = dataclasses.replace(method, source="+".join(source.name for source in declared))  # type: ignore[call-arg]
    return method
