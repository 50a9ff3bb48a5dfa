"""From what a user typed to a RunSpec with nothing left open: defaults filled in, impossible pairs refused."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.run import budgets, equal_cost, teacher_names
from kfbench.run.teacher_names import TeacherName, outline
from kfbench.spec import GameRecipe, Recipe, RunSpec, Setting

if TYPE_CHECKING:
    from kfbench.methods import Method
    from kfbench.tasks import GameTask, ImageTask


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
    made = registry.load_method(method, dict(settings or {}))
    declared = registry.load_task(task)
    if declared.kind not in made.kinds:
        raise KfbenchError(f"method '{method}' is for {' and '.join(made.kinds)}, task '{task}' is of {declared.kind}")
    changes = dict(recipe or {})
    full = budgets.recipe(declared, budget, changes)
    outline(declared, full.network)
    if teachers is None:
        names = _default_teachers(made, declared, budget, full.network, changes)
    else:
        names = [teacher_names.read(text, budget=budget) for text in teachers if text]
    if registry.split(method)[1] in made.instead_of_teachers:
        default = [teacher_names.read(source, budget=budget) for source in declared.sources]
        full, names = equal_cost.longer(declared, full, default if teachers is None else names), []
    _count(made, method, declared, full.network, names)
    for name in names:
        _refuse(made, method, declared, full, name)
    if getattr(made, "source", None) == "":
        sources = list(dict.fromkeys(name.task for name in names)) or list(declared.sources[:1])
        if not all(sources) or not sources:
            raise KfbenchError(f"method '{method}' needs a task to train on first; give --set source=TASK")
        made = dataclasses.replace(made, source="+".join(sources))  # type: ignore[call-arg]
    for source in filter(None, getattr(made, "source", "").split("+")):
        if registry.load_task(source).kind != declared.kind:
            raise KfbenchError(f"source '{source}' is not a task of {declared.kind}, as '{declared.name}' is")
    return RunSpec(
        method=method,
        task=declared.name,
        budget=budget,
        teachers=tuple(str(name) for name in names),
        seed=seed,
        recipe=full,
        settings=made.settings(),
    )


def _default_teachers(
    method: "Method", task: "ImageTask | GameTask", budget: str, network: str, changes: Mapping[str, Any]
) -> list[TeacherName]:
    fewest, most = method.teachers
    if fewest == 0:
        return []
    if method.needs == "outputs":  # the same task, a larger network (and the student's), as many labels as the student
        own = ("network", "precision", "views")  # of the student's run, not of its teacher's training
        same = tuple((name, str(value)) for name, value in changes.items() if name not in own)
        others = [] if method.teacher_is_twin else [budgets.teacher_network(task, budget)]
        chosen = [*others, network][:fewest]
        return [TeacherName("trained", task=task.name, network=each, budget=budget, recipe=same) for each in chosen]
    sources = [teacher_names.read(source, budget=budget) for source in task.sources]
    if method.needs == "architecture" or method.starts_from_teacher:
        sources = [dataclasses.replace(source, network=network) for source in sources]
    return sources[:most]


def _count(
    method: "Method", name: str, task: "ImageTask | GameTask", network: str, teachers: Sequence[TeacherName]
) -> None:
    fewest, most = method.teachers
    if len(teachers) < fewest:
        many = "a teacher" if fewest == 1 else f"{fewest} teachers"
        none = "" if task.sources else ", which has no default ones"
        if method.needs == "architecture":
            give = f"give one of the student's network: --teachers cifar10/{network}, run:KEY or file:PATH"
        else:
            give = "give --teachers TASK[,TASK…], as cifar10, or run:KEY, file:PATH, torchvision:resnet18:pretrained"
        raise KfbenchError(f"method '{name}' needs {many} for task '{task.name}'{none}; {give}")
    if most is not None and len(teachers) > most:
        takes = f"takes {most} teacher(s), not {len(teachers)}" if most else "takes no teachers"
        raise KfbenchError(f"method '{name}' {takes}; leave --teachers {'shorter' if most else 'out'}")


def _refuse(
    method: "Method", name: str, task: "ImageTask | GameTask", recipe: "Recipe | GameRecipe", teacher: TeacherName
) -> None:
    """Refuse what can be seen to be impossible from names alone; `check_loaded` sees the rest."""
    if teacher.kind not in ("trained", "random"):
        return
    network = recipe.network
    if method.needs == "architecture" and teacher.network != network:
        raise KfbenchError(
            f"method '{name}' needs a teacher of the student's network '{network}', but '{teacher}' is a "
            f"'{teacher.network}'; use --teachers {teacher.task}/{network} or --network {teacher.network}"
        )
    if method.needs == "architecture":
        from kfbench.transfer.transplant import misfit

        theirs, ours = outline(registry.load_task(teacher.task), network), outline(task, network)
        why = misfit(theirs, ours) if theirs and ours else None
        if why:
            raise KfbenchError(
                f"method '{name}' copies weights, but '{teacher}' has other sizes: {why}; use a teacher for images "
                "like those of the task, or a --network that pools them, such as cnn-16"
            )
    if method.needs == "outputs" and task.kind == "games" and registry.load_task(teacher.task).kind == "images":
        raise KfbenchError(
            f"method '{name}' copies a policy, but '{teacher}' is of images; use --teachers {task.name}, or a method "
            "that takes features (kf)"
        )
    if method.needs == "outputs" and teacher.task != task.name and task.kind == "images":
        raise KfbenchError(
            f"method '{name}' needs a teacher with the classes of '{task.name}', but '{teacher}' has others; "
            f"use --teachers {task.name}/{teacher.network}, or a method that takes features (kf)"
        )
    if method.needs == "outputs" and isinstance(recipe, GameRecipe) and teacher.task != task.name:
        made = teacher.spec().recipe
        assert isinstance(made, GameRecipe)
        if not (recipe.full_actions and made.full_actions):
            raise KfbenchError(
                f"method '{name}' copies a policy, so '{teacher.task}' and '{task.name}' must share their actions; use "
                f"--set-recipe full_actions=true and --teachers {teacher.task}@{teacher.budget}:full_actions=true"
            )
