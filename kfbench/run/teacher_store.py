"""The teachers of a run: loaded by name, trained first where the store has none.

The store is `results/teachers`, a results folder of its own: a teacher is a run of `scratch` with seed 0 and weights.
"""

from pathlib import Path

import torch

from kfbench import networks, registry, seeding
from kfbench.data import images
from kfbench.errors import KfbenchError
from kfbench.networks import weights
from kfbench.networks.network import Network
from kfbench.run import export, imported, records, teacher_names
from kfbench.run.execute import run
from kfbench.run.teacher_names import TeacherName
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import GameTask, ImageTask
from kfbench.teachers import Teacher
from kfbench.train.loop import Watcher


def load(name: str, *, spec: RunSpec, index: int, results: Path, device: torch.device, watcher: Watcher) -> Teacher:
    """Return a teacher of a run, on the CPU. Raises KfbenchError if it cannot be had."""
    asked = teacher_names.read(name, budget=spec.budget)
    if asked.kind == "trained":
        return trained(asked, index=index, results=results, device=device, watcher=watcher)
    if asked.kind == "random":
        return _random(asked, index)
    if asked.kind == "run":
        return _of_run(asked, index, results)
    if asked.kind == "imported":
        network, about = imported.load(asked.rest, results)
        return Teacher(network, name, about["task"], tuple(about["classes"]), about["digest"], index)
    if asked.kind == "file":
        network, about, digest = imported.of_file(Path(asked.rest))
        return Teacher(network, name, about.get("task"), tuple(about.get("classes", ())), digest, index)
    return _of_library(name, spec, index)


def trained(asked: TeacherName, *, index: int, results: Path, device: torch.device, watcher: Watcher) -> Teacher:
    """Return a teacher from the store; train it first if it is not there."""
    folder = results / "teachers"
    wanted = asked.spec()
    watcher.say(f"teacher {asked}:")
    record = run(wanted, results=folder, device=str(device), watcher=watcher)
    path = records.path_of(folder, record.key, wanted).with_suffix(".safetensors")
    if not path.is_file():
        watcher.say(f"teacher {asked} has a record but no weights here: it is trained again")
        record = run(wanted, results=folder, device=str(device), watcher=watcher, force=True)
    network, about, digest = weights.load(path)
    if digest != record.provenance["weights"]:
        raise KfbenchError(f"'{path}' is not the teacher of its record; delete it, and it is trained again")
    return Teacher(network, str(asked), about["task"], tuple(about["classes"]), digest, index, record.cost["seconds"])


def _random(asked: TeacherName, index: int) -> Teacher:
    """Return the control: the same network with its first weights, its BatchNorm calibrated on 500 training images.

    Without that its deeper features would vanish or explode, and the control would be a straw man.
    """
    declared = registry.load_task(asked.task)
    if isinstance(declared, GameTask):
        recipe = asked.spec().recipe
        assert isinstance(recipe, GameRecipe)
        shape, classes, data = declared.shape, declared.actions(full=recipe.full_actions), None
    else:
        data = images.load(declared)
        shape, classes = data.shape, data.classes
    with seeding.global_stream(0, "random teacher", str(asked)):
        network = networks.make(asked.network, shape=shape, outputs=len(classes))
    if data is None:
        network.normalise_by(torch.zeros(shape[0]), torch.ones(shape[0]))  # as a student of games sees its frames
    else:
        network.normalise_by(data.mean, data.std)
        calibrate(network, images.to_float(data.train.images[:500]))
    return Teacher(network, str(asked), asked.task, classes, weights.digest(network.state_dict()), index)


def calibrate(network: Network, taken: torch.Tensor) -> None:
    """Set BatchNorm's running statistics from one pass over images [B, C, H, W]."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain average, here of one batch
    with torch.no_grad(), seeding.global_stream(0, "calibrate"):
        network.train()(taken)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _of_run(asked: TeacherName, index: int, results: Path) -> Teacher:
    record, network, about = export.load(asked.rest, results=results)
    seconds = record.cost["seconds"] + record.cost["teacher_seconds"]
    digest: str = record.provenance["weights"]
    return Teacher(network, str(asked), about["task"], tuple(about["classes"]), digest, index, seconds)


def _of_library(name: str, spec: RunSpec, index: int) -> Teacher:
    """Return a network of torchvision or timm: with `:pretrained` its ImageNet weights, else its first ones."""
    declared = registry.load_task(spec.task)
    shape = images.load(declared).shape if isinstance(declared, ImageTask) else declared.shape
    with seeding.global_stream(0, "random teacher", name):
        network = networks.make(name, shape=shape, outputs=1000)
    return Teacher(network, name, None, (), weights.digest(network.state_dict()), index)
