"""A run in miniature: the real method, networks and loop, with teachers that are not trained; images are made up.

It shows what a step costs (`estimate`, `bench`), how a method behaves (`checks`) and whether its student can be made,
before data or teachers are there.
"""

import dataclasses
from pathlib import Path

from kfbench import networks, registry, seeding
from kfbench.errors import KfbenchError
from kfbench.running import identity, teacher_names, teacher_store
from kfbench.running.device import torch_device
from kfbench.running.prepare import assemble
from kfbench.spec import RunSpec
from kfbench.teachers import Teacher
from kfbench.train.setup import Setup
from kfbench.train.training import training_of


def setup(spec: RunSpec, *, rows: int = 0, device: str = "cpu", results: Path | None = None) -> Setup:
    """Return what the run's loop would work with, on `rows` made-up training examples and as many to validate on.

    A game has its emulators instead. With `results`, teachers whose network only their weights tell are the real ones.
    """
    return _beside(_teachers(spec, results), spec, rows=rows, device=device)


def require_student(spec: RunSpec, *, results: Path) -> None:
    """Raise KfbenchError if a method cannot make its student for this task and such teachers: before any is trained.

    And if a student that is to act cannot say what a state is worth. A teacher that is not here is told when the run is
    to begin, and what else goes wrong belongs into the run's record.
    """
    try:
        teachers = _teachers(spec, results)
    except KfbenchError:
        return
    plain = dataclasses.replace(spec.recipe, network=spec.recipe.network.removesuffix(":pretrained"))
    try:
        made = _beside(teachers, dataclasses.replace(spec, recipe=plain), rows=2, device="cpu")
        training_of(registry.kind_of(spec.task)).require_student(made)
    except KfbenchError:
        raise
    except Exception:  # of a method's own code
        return


def _teachers(spec: RunSpec, results: Path | None) -> list[Teacher]:
    return [
        teacher(name, spec, index)
        if results is None or not _only_weights_tell(name, spec)
        else teacher_store.find(name, spec=spec, index=index, results=results).load()
        for index, name in enumerate(spec.teachers)
    ]


def _beside(teachers: list[Teacher], spec: RunSpec, *, rows: int, device: str) -> Setup:
    """Return what a run's loop would work with beside these teachers."""
    task, method = registry.load_task(spec.task), registry.recorded_method(spec.method, spec.settings)
    training = training_of(task.kind)
    place = torch_device(device)
    others = {
        name: (other, training.made_up(other, rows, place))
        for name, other in identity.stage_tasks(method, spec).items()
    }
    return assemble(spec, method, teachers, training.made_up(task, rows, place), others, device=place)


def _only_weights_tell(name: str, spec: RunSpec) -> bool:
    return teacher_names.read(name, budget=spec.budget).kind in ("run", "imported", "file", "hf")


def teacher(name: str, spec: RunSpec, index: int) -> Teacher:
    """Return an untrained teacher of the network, shape and outputs that the name stands for."""
    asked = teacher_names.read(name, budget=spec.budget)
    task = registry.load_task(asked.task or spec.task)
    classes = task.placeholders(asked.spec().recipe if asked.task else spec.recipe)
    network = asked.network
    if asked.kind in ("timm", "torchvision"):
        network, classes = name, tuple(str(number) for number in range(1000))
    network = (network or spec.recipe.network).removesuffix(":pretrained")
    with seeding.global_stream(index, "stand-in teacher"):
        untrained = networks.make(network, shape=task.shape, outputs=len(classes))
        training_of(task.kind).without_data(untrained, task)
    return Teacher(untrained, name, task.name, classes, str(index), index)
