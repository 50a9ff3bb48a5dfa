"""The command that makes a run, as words: to make it elsewhere, or another one like it."""

from dataclasses import asdict
from typing import Any

from kfbench import registry
from kfbench.running import budgets, teacher_names
from kfbench.running.teacher_names import TeacherName
from kfbench.spec import RunSpec, typed


def run(spec: RunSpec) -> list[str]:
    """Return the words of `kfbench run` that ask for this very spec.

    Raises KfbenchError if its method or task is not here.
    """
    variant = registry.split(spec.method)[1]
    method = registry.recorded_method(spec.method, spec.settings)
    usual = registry.load_method(spec.method, optimizer=spec.recipe.optimizer)
    settings = _differences(asdict(method), asdict(usual))
    words = ["kfbench", "run", "--method", spec.method, "--task", spec.task, "--budget", spec.budget]
    if method.teachers[1] != 0 or variant in method.instead_of_teachers:  # "" for none: else there are default ones
        words += ["--teachers", ",".join(spec.teachers)]
    words += ["--seed", str(spec.seed)]
    for option, values in (("--set", settings), ("--set-recipe", _recipe(spec))):
        for name, value in values.items():
            words += [option, f"{name}={typed(value)}"]
    return words


def teacher(spec: RunSpec) -> list[str]:
    """Return the words of `kfbench teacher train` that ask for a teacher's run."""
    changes = _recipe(spec)
    network = changes.pop("network", spec.recipe.network)
    recipe = teacher_names.changed(registry.load_task(spec.task), network, spec.budget, changes)
    name = TeacherName("trained", task=spec.task, network=network, budget=spec.budget, recipe=recipe)
    return ["kfbench", "teacher", "train", str(name)]


def _recipe(spec: RunSpec) -> dict[str, Any]:
    """Return the fields of a run's recipe that its budget does not give."""
    return _differences(asdict(spec.recipe), asdict(budgets.recipe(registry.load_task(spec.task), spec.budget)))


def _differences(values: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != plain[name]}
