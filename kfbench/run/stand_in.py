"""A run in miniature: the real method, networks and loop, with teachers that are not trained; images are made up.

It shows what a step costs (`estimate`, `bench`) and how a method behaves (`checks`) before data or teachers are there.
"""

import dataclasses
from typing import cast

import torch

from kfbench import networks, registry, seeding
from kfbench.data import images
from kfbench.data.packs import Pack
from kfbench.run import execute, teacher_names
from kfbench.run.device import torch_device
from kfbench.run.prepare import Prepared, make_setup
from kfbench.spec import GameRecipe, Recipe, RunSpec
from kfbench.tasks import GameTask, ImageTask
from kfbench.teachers import Teacher
from kfbench.train.setup import Setup


def setup(spec: RunSpec, *, rows: int = 0, device: str = "cpu") -> Setup:
    """Return what the run's loop would work with, on `rows` made-up training images and as many to validate on.

    A game has its emulators instead.
    """
    declared, place = registry.load_task(spec.task), torch_device(device)
    method = registry.recorded_method(spec.method, spec.settings)
    teachers = [teacher(name, spec, index) for index, name in enumerate(spec.teachers)]
    data, others = None, {}
    if isinstance(declared, ImageTask):
        data = made_up(declared, rows)
        others = {name: made_up(other, rows) for name, (other, _) in execute.stage_tasks(method, spec).items()}
    return make_setup(spec, Prepared("", {}, method, declared, teachers, data, None, others), device=place)


def made_up(declared: ImageTask, rows: int) -> images.Images:
    """Return noise in the form of a task's data, each class in turn; the test split is refused."""
    rng = seeding.stream(0, "stand-in", declared.name)
    labels = torch.arange(rows) % declared.outputs
    tint = torch.randint(0, 128, (declared.outputs, declared.shape[0], 1, 1), generator=rng, dtype=torch.uint8)
    noise = torch.randint(0, 128, (rows, *declared.shape), generator=rng, dtype=torch.uint8)
    split = images.Split(noise + tint[labels], labels)
    mean, std = images.statistics(split.images)
    classes = tuple(str(number) for number in range(declared.outputs))
    return images.Images(split, split, classes, mean, std, cast(Pack, None), tuple(range(declared.outputs)))


def teacher(name: str, spec: RunSpec, index: int) -> Teacher:
    """Return an untrained teacher of the network, shape and outputs that the name stands for."""
    asked = teacher_names.read(name, budget=spec.budget)
    declared = registry.load_task(asked.task or spec.task)
    if isinstance(declared, GameTask):
        recipe = asked.spec().recipe if asked.task else spec.recipe
        assert isinstance(recipe, GameRecipe)
        classes = declared.actions(full=recipe.full_actions)
    else:
        classes = tuple(str(number) for number in range(declared.outputs))
    network = asked.network
    if not network and asked.kind in ("timm", "torchvision"):
        network, classes = name, tuple(str(number) for number in range(1000))
    network = (network or spec.recipe.network).removesuffix(":pretrained")
    with seeding.global_stream(index, "stand-in teacher"):
        made = networks.make(network, shape=declared.shape, outputs=len(classes))
        if isinstance(declared, GameTask):
            made.normalise_by(torch.zeros(declared.shape[0]), torch.ones(declared.shape[0]))
    return Teacher(made, name, declared.name, classes, str(index), index)


def shortened(spec: RunSpec, *, steps: int) -> RunSpec:
    """Return an image spec whose stand-in of one batch of rows trains for `steps` steps, evaluated once, at the end."""
    assert isinstance(spec.recipe, Recipe)
    recipe = dataclasses.replace(spec.recipe, epochs=steps, train_size=None, evaluations=1)
    return dataclasses.replace(spec, recipe=recipe)
