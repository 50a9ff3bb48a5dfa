"""What training costs in multiply-adds, and a recipe trained longer by what teachers would have cost: the control."""

import functools
from collections.abc import Sequence

from kfbench import networks, registry, seeding
from kfbench.data import images
from kfbench.errors import KfbenchError
from kfbench.kinds import Declared
from kfbench.networks.hollow import hollow
from kfbench.networks.measure import multiply_adds
from kfbench.running import teacher_names
from kfbench.running.teacher_names import TeacherName
from kfbench.spec import AnyRecipe, Recipe, RunSpec
from kfbench.tasks import ImageTask
from kfbench.train import supervised
from kfbench.train.training import training_of


def longer(task: Declared, recipe: AnyRecipe, teachers: Sequence[TeacherName]) -> AnyRecipe:
    """Return the recipe with more training (epochs, frames), so that it costs what it and its teachers would.

    Counted are each teacher's training, and its forward pass on everything that the student sees. Raises KfbenchError
    for a teacher whose training is not known.
    """
    if not teachers:
        return recipe
    training = training_of(task.kind)
    seen = training.seen(task, recipe)
    extra = 0
    for teacher in teachers:
        if not teacher.task:
            raise KfbenchError(
                f"what the training of teacher '{teacher}' cost is not known; name teachers by their task"
            )
        declared = registry.load_task(teacher.task)
        extra += seen * multiply_adds_of(declared, teacher.network)
        if teacher.kind == "trained":
            extra += training_cost(declared, teacher.spec().recipe)
    longer: AnyRecipe = training.longer(recipe, 1 + extra / training_cost(task, recipe))
    return longer


def training_cost(task: Declared, recipe: AnyRecipe) -> int:
    """Return the multiply-adds of training a recipe's network; labels are counted where the recipe takes all data."""
    training = training_of(task.kind)
    return training.seen(task, recipe) * multiply_adds_of(task, recipe.network) * training.passes(recipe)


def run_cost(spec: RunSpec) -> int:
    """Return the multiply-adds of a run: the student's training, and each teacher's pass on everything it sees.

    Passes that only some methods make are not counted. Raises KfbenchError for a teacher whose network is not known.
    """
    task = registry.load_task(spec.task)
    cost = training_cost(task, spec.recipe)
    for name in spec.teachers:
        teacher = teacher_names.read(name, budget=spec.budget)
        if not teacher.task:
            raise KfbenchError(f"what a pass of teacher '{name}' costs is not known before it is loaded")
        seen = training_of(task.kind).seen(task, spec.recipe)
        cost += seen * multiply_adds_of(registry.load_task(teacher.task), teacher.network)
    return cost


def steps(spec: RunSpec) -> int:
    """Return how many optimiser steps a run on images takes."""
    recipe, task = Recipe.of(spec), registry.load_task(spec.task)
    assert isinstance(task, ImageTask)
    return supervised.steps(recipe, recipe.train_size or images.counts(task)[0])


def multiply_adds_of(task: Declared, network: str) -> int:
    """Return the multiply-adds of a network for one example of a task."""
    return _counted(network, task.shape, task.outputs)


@functools.cache
def _counted(network: str, shape: tuple[int, int, int], outputs: int) -> int:
    try:
        with hollow():
            outline = networks.make(network, shape=shape, outputs=outputs)
    except NotImplementedError:  # it looks at a number while it is made, as torchvision's RegNets do
        with seeding.global_state_kept():
            outline = networks.make(network, shape=shape, outputs=outputs)
    return multiply_adds(outline, shape)
