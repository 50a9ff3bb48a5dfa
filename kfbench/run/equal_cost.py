"""What training costs in multiply-adds, and a recipe trained longer by what teachers would have cost: the control."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from kfbench import networks, registry
from kfbench.data import images
from kfbench.errors import KfbenchError
from kfbench.networks.measure import multiply_adds
from kfbench.spec import GameRecipe, Recipe

if TYPE_CHECKING:
    from kfbench.run.teacher_names import TeacherName
    from kfbench.tasks import GameTask, ImageTask

BACKWARD = 2  # a backward pass costs about two forward passes


def longer(
    task: "ImageTask | GameTask", recipe: Recipe | GameRecipe, teachers: Sequence["TeacherName"]
) -> Recipe | GameRecipe:
    """Return the recipe with more epochs (games: frames), so that it costs what it and its teachers would.

    Counted are each teacher's training, and its forward pass on everything that the student sees. Raises KfbenchError
    for a teacher whose training is not known.
    """
    own = multiply_adds_of(task, recipe.network)
    spent = seen(task, recipe) * own * passes(recipe)
    extra = 0
    for teacher in teachers:
        if teacher.kind not in ("trained", "random"):
            raise KfbenchError(
                f"what the training of teacher '{teacher}' cost is not known; name teachers by their task"
            )
        declared, made = registry.load_task(teacher.task), teacher.spec().recipe
        size = multiply_adds_of(declared, teacher.network)
        extra += seen(task, recipe) * size
        if teacher.kind == "trained":
            extra += seen(declared, made) * size * passes(made)
    factor = 1 + extra / spent
    if isinstance(recipe, GameRecipe):
        return dataclasses.replace(recipe, frames=round(recipe.frames * factor))
    return dataclasses.replace(recipe, epochs=round(recipe.epochs * factor, 2))


def seen(task: "ImageTask | GameTask", recipe: Recipe | GameRecipe) -> int:
    """Return how many images (observations) training goes through; the data are read where the recipe takes all."""
    if isinstance(recipe, GameRecipe):
        return recipe.frames // 4
    if recipe.train_size is not None:
        return round(recipe.epochs * recipe.train_size)
    assert task.kind == "images"
    return round(recipe.epochs * len(images.load(task, None).train))


def passes(recipe: Recipe | GameRecipe) -> int:
    """Return how many forward passes the training on one image (observation) is worth."""
    return 1 + (1 + BACKWARD) * recipe.passes if isinstance(recipe, GameRecipe) else 1 + BACKWARD


def multiply_adds_of(task: "ImageTask | GameTask", network: str) -> int:
    """Return the multiply-adds of a network for one image of a task."""
    with torch.device("meta"):  # no memory, no random numbers
        made = networks.make(network, shape=task.shape, outputs=outputs(task))
    return multiply_adds(made, task.shape)


def outputs(task: "ImageTask | GameTask") -> int:
    """Return the number of a task's outputs; games: of the console, for it hardly matters here."""
    return task.outputs if task.kind == "images" else 18
