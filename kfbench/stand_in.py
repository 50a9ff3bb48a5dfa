"""A run in miniature: the real method, networks and loop on made-up images, with teachers that are not trained.

It shows what a step costs (`estimate`, `bench`) and how a method behaves (`checks`) before data or teachers are there.
"""

import dataclasses
from typing import cast

import torch

from kfbench import execute, images, networks, registry, resolve, seeding
from kfbench.errors import KfbenchError
from kfbench.live import Live, Prepared, make_live, torch_device
from kfbench.packs import Pack
from kfbench.spec import Recipe, RunSpec
from kfbench.tasks import ImageTask
from kfbench.teachers import Teacher


def live(spec: RunSpec, *, rows: int, device: str = "cpu") -> Live:
    """Return what the run's loop would work with, on `rows` made-up training images and as many to validate on.

    Raises KfbenchError for a game, or a task whose image shape only its data tell.
    """
    declared = registry.load_task(spec.task)
    if not isinstance(declared, ImageTask):
        raise KfbenchError(f"task '{spec.task}' has no stand-in; it runs on its emulator")
    method = registry.load_method(spec.method, spec.settings)
    data = made_up(declared, rows)
    teachers = [teacher(name, spec, index) for index, name in enumerate(spec.teachers)]
    others = {name: made_up(other, rows) for name, (other, _) in execute.stage_tasks(method, spec).items()}
    place = torch_device(device)
    return make_live(spec, Prepared("", {}, method, declared, teachers, data, None, others), device=place)


def made_up(declared: ImageTask, rows: int) -> images.Images:
    """Return noise in the form of a task's data, each class in turn; the test split is refused."""
    if not declared.outputs or not all(declared.shape):
        raise KfbenchError(f"task '{declared.name}' tells its shape only with its data; import them first")
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
    asked = resolve.teacher_name(name, budget=spec.budget)
    declared = registry.load_task(asked.task or spec.task)
    assert isinstance(declared, ImageTask)
    network, outputs = asked.network, declared.outputs
    if not network:
        network, outputs = (name, 1000) if asked.kind in ("timm", "torchvision") else (spec.recipe.network, outputs)
    with seeding.global_stream(index, "stand-in teacher"):
        made = networks.make(network.removesuffix(":pretrained"), shape=declared.shape, outputs=outputs)
    return Teacher(made, name, declared.name, tuple(str(number) for number in range(outputs)), str(index), index)


def shortened(spec: RunSpec, *, steps: int) -> RunSpec:
    """Return a spec whose stand-in of one batch of rows trains for `steps` steps with one evaluation, at the end."""
    assert isinstance(spec.recipe, Recipe)
    recipe = dataclasses.replace(spec.recipe, epochs=steps, train_size=None, evaluations=1)
    return dataclasses.replace(spec, recipe=recipe)
