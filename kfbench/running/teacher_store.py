"""The teachers of a run: found by name, then loaded. Who lacks one is told; nothing is trained here.

The store is `results/teachers`, a results folder of its own: a teacher is a run of `scratch` with seed 0 and weights.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kfbench import networks, registry, seeding
from kfbench.errors import KfbenchError
from kfbench.folders import at_home
from kfbench.networks import header, weights
from kfbench.networks.network import Network
from kfbench.networks.saved import Damaged
from kfbench.running import export, identity, imported, records, suitability, teacher_names
from kfbench.running.files import store
from kfbench.running.records import RunRecord
from kfbench.running.suitability import Candidate
from kfbench.running.teacher_names import TeacherName
from kfbench.spec import RunSpec, digest
from kfbench.teachers import Teacher
from kfbench.train.training import training_of


@dataclass(frozen=True)
class Found:
    """A teacher that is there. Its digest is known; a stored network is read when it is loaded."""

    digest: str  # see `identity.of_teacher`
    known: Candidate  # as far as can be told before it is loaded
    load: Callable[[], Teacher]  # onto the CPU


def whole(name: str, results: Path) -> str:
    """Return a teacher's name with all of its key, where it is a run that goes by how its key begins.

    A spec holds such names, and who looks for the run that taught (`verify`, `delete`) takes them as they stand.
    """
    kind, _, key = name.partition(":")
    return f"run:{records.locate(results, key)[1].key}" if kind == "run" else name


def find(name: str, *, spec: RunSpec, index: int, results: Path) -> Found:
    """Return the teacher of a run by its name. Raises KfbenchError if it is not there."""
    found = _find(teacher_names.read(name, budget=spec.budget), spec=spec, index=index, results=results)
    assert found.known.network is not None, "of a teacher that is there its network is known"
    whole = identity.of_teacher(found.digest, found.known.network)
    return Found(whole, found.known, lambda: replace(found.load(), digest=whole))


def alone(name: str, results: Path) -> Teacher:
    """Return a teacher, or the student of a run whose key begins so, outside of a run.

    Raises KfbenchError if it is not there, or made for the images of a run.
    """
    if not name.strip():
        raise KfbenchError("no run is named; give how its key begins, or a teacher's name")
    is_key = re.fullmatch("[0-9a-f]+", name)
    try:
        asked = teacher_names.read(f"run:{name}" if is_key else name, budget=RunSpec.budget)
    except KfbenchError as error:
        if re.fullmatch("[0-9a-z]+", name):
            raise KfbenchError(f"'{name}' is no key, which has 0 to 9 and a to f, and no teacher: {error}") from error
        raise
    if asked.kind in ("torchvision", "timm"):
        network = name.removesuffix(":pretrained")
        raise KfbenchError(
            f"network '{name}' is made for a run's images: kfbench run --method finetune --network {network} …, whose "
            f"key is taken here; or in Python: kfbench.networks.make('{name}', shape=(C, H, W), outputs=K)"
        )
    spec = RunSpec(teacher_names.TRAINED_BY, asked.task)
    return _find(asked, spec=spec, index=0, results=results).load()


def _find(asked: TeacherName, *, spec: RunSpec, index: int, results: Path) -> Found:
    """Return the teacher with the digest of its weights alone."""
    if asked.kind == "trained":
        return _trained(asked, index, results)
    if asked.kind == "run":
        return _of_run(asked, index, results)
    makers: dict[str, Callable[[TeacherName, int], Teacher]] = {
        "random": _random,
        "file": _of_file,
        "imported": partial(_imported, results=results),
        "hf": _of_hub,
    }
    make = makers.get(asked.kind, partial(_of_library, spec=spec))
    teacher = make(asked, index)  # here already: its digest is known when it is there
    return Found(teacher.digest, suitability.loaded(teacher), lambda: teacher)


def stored(wanted: RunSpec, results: Path) -> RunRecord | None:
    """Return the record of a teacher in the store, if its weights are there too."""
    path = records.path_of(store(results), digest(identity.of(wanted, [])), wanted)
    if not (path.is_file() and path.with_suffix(".safetensors").is_file()):
        return None
    record = records.read(path)
    return record if record.status == "done" else None


def _trained(asked: TeacherName, index: int, results: Path) -> Found:
    wanted = asked.spec()
    record = stored(wanted, results)
    if record is None:
        raise KfbenchError(f"teacher '{asked}' is not in '{store(results)}'; make it: kfbench teacher train {asked}")
    path = records.path_of(store(results), record.key, wanted).with_suffix(".safetensors")
    seconds, expected = record.cost["seconds"], str(record.provenance["weights"])

    def load() -> Teacher:
        remedy = f"delete it, and it is trained again: kfbench teacher delete {record.key} --force"
        try:
            network, about, weights_digest = weights.load(path)
        except Damaged as error:
            raise KfbenchError(f"{error.what}; {remedy}") from error
        if weights_digest != expected:
            raise KfbenchError(f"'{path}' is not the teacher of its record; {remedy}")
        return _described(network, asked, about, weights_digest, index, seconds)

    known = Candidate(str(asked), registry.load_task(asked.task), wanted.recipe, wanted.recipe.network)
    return Found(expected, known, load)


def _of_run(asked: TeacherName, index: int, results: Path) -> Found:
    """Return the student that a recorded run kept."""
    record, path = export.kept(asked.rest, results=results)
    seconds = record.cost["seconds"] + record.cost["teacher_seconds"]
    expected = str(record.provenance["weights"])

    def load() -> Teacher:
        _, network, about = export.load(asked.rest, results=results)
        return _described(network, asked, about, expected, index, seconds)

    classes = tuple(header.read(path).get("classes", ())) or None
    known = Candidate(str(asked), network=record.spec["recipe"]["network"], classes=classes)
    return Found(expected, known, load)


def _described(
    network: Network, asked: TeacherName, about: Mapping[str, Any], digest: str, index: int, seconds: float = 0.0
) -> Teacher:
    """Return a teacher with what its file says of it."""
    classes, resized = tuple(about.get("classes", ())), about.get("resized", "")
    return Teacher(network, str(asked), about.get("task"), classes, digest, index, seconds, resized)


def _of_file(asked: TeacherName, index: int) -> Teacher:
    network, about, weights_digest = imported.of_file(at_home(asked.rest))
    return _described(network, asked, about, weights_digest, index)


def _imported(asked: TeacherName, index: int, *, results: Path) -> Teacher:
    network, about = imported.load(asked.rest, results)
    return _described(network, asked, about, about["digest"], index)


def _random(asked: TeacherName, index: int) -> Teacher:
    """Return the control: the same network with its first weights, which sees its input as a trained one would."""
    task = registry.load_task(asked.task)
    classes = task.labels(asked.spec().recipe)
    with seeding.global_stream(0, "random teacher", str(asked)):
        network = networks.make(asked.network, shape=task.shape, outputs=len(classes))
    training_of(task.kind).settle(network, task)
    return Teacher(network, str(asked), asked.task, classes, weights.digest(network.state_dict()), index)


def _of_hub(asked: TeacherName, index: int) -> Teacher:
    from kfbench.running import hub  # only here: it asks the net, and needs a library that not everyone has

    network, about, digest = hub.fetch(asked.rest)
    return _described(network, asked, about, digest, index)


def _of_library(asked: TeacherName, index: int, *, spec: RunSpec) -> Teacher:
    """Return a network of torchvision or timm: with `:pretrained` its ImageNet weights, else its first ones."""
    name = str(asked)
    with seeding.global_stream(0, "random teacher", name):
        network = networks.make(name, shape=registry.load_task(spec.task).shape, outputs=1000)
    return Teacher(network, name, None, (), weights.digest(network.state_dict()), index)
