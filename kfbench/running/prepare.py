"""What a run needs, worked out before anything is done: the teachers to train first, its key, what its loop works with.

`missing_teachers` is the plan that `run`, `study`, `estimate` and `--dry-run` share. `plan` and the key need the data's
checksum and the teachers' digests, not the data; `setup` loads.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kfbench import networks, registry, seeding
from kfbench.errors import KfbenchError
from kfbench.kinds import Declared
from kfbench.methods import Method
from kfbench.networks.network import Network
from kfbench.running import budgets, identity, suitability, teacher_names, teacher_store
from kfbench.running.suitability import Student
from kfbench.running.teacher_store import Found
from kfbench.spec import RunSpec, digest
from kfbench.teachers import Teacher
from kfbench.train.loop import Loop
from kfbench.train.setup import Setup
from kfbench.train.told import student_of
from kfbench.train.training import Training, training_of


@dataclass(frozen=True)
class Plan:
    """A run that can begin: its teachers are there."""

    spec: RunSpec
    key: str
    identity: dict[str, Any]
    teachers: tuple[Found, ...]


def teachers_of(spec: RunSpec) -> list[RunSpec]:
    """Return the runs that train a run's teachers, whether they are in the store or not, each once."""
    names = (teacher_names.read(name, budget=spec.budget) for name in spec.teachers)
    return _once(name.spec() for name in names if name.kind == "trained")


def missing_teachers(*specs: RunSpec, results: Path) -> list[RunSpec]:
    """Return the runs to make before these, each once and in order: their teachers that the store of `results` lacks.

    A teacher lacks where its record or its weights do. `execute.teacher` makes one. Raises KfbenchError if the data of
    a run or a teacher are not on this machine, or fewer than asked for.
    """
    _require_data(specs)
    wanted = _once(teacher for spec in specs for teacher in teachers_of(spec))
    missing = [teacher for teacher in wanted if teacher_store.stored(teacher, results) is None]
    _require_data(missing)
    return missing


def _require_data(specs: Iterable[RunSpec]) -> None:
    for spec in specs:
        training_for(spec).require(registry.load_task(spec.task), spec.recipe)


HERE = ("run", "imported", "file")  # kinds of teachers that lie on this machine as weights


def require_others(spec: RunSpec, *, results: Path, downloads: bool = True) -> None:
    """Raise KfbenchError if a run's other teachers, or weights it begins with, cannot be had: before any is trained.

    Without `downloads` those that another place may have to send pass.
    """
    for index, name in enumerate(spec.teachers):
        kind = teacher_names.read(name, budget=spec.budget).kind
        if kind in HERE or (downloads and kind != "trained"):
            teacher_store.find(name, spec=spec, index=index, results=results)
    if downloads and spec.recipe.network.endswith(":pretrained"):
        with seeding.global_stream(0, "look"):
            networks.make(spec.recipe.network, shape=registry.load_task(spec.task).shape, outputs=2)


def require_suited(spec: RunSpec, *, results: Path) -> None:
    """Raise Unsuitable if one of a run's teachers that lie here as weights cannot serve.

    A teacher that is not here passes, and so do all where the data are not: that is told when the run is to begin.
    """
    there = []
    for index, name in enumerate(spec.teachers):
        if teacher_names.read(name, budget=spec.budget).kind in HERE:
            with contextlib.suppress(KfbenchError):
                there.append(teacher_store.find(name, spec=spec, index=index, results=results).known)
    if not there:
        return
    try:
        student = _student(spec)
    except KfbenchError:
        return
    for known in there:
        suitability.require(student, known)


def called(teacher: RunSpec) -> str:
    """Return what people are told of a teacher's run: "cifar10/cnn-32@small"."""
    return f"{teacher.task}/{teacher.recipe.network}@{teacher.budget}"


def _once(specs: Iterable[RunSpec]) -> list[RunSpec]:
    return list({digest(spec.to_json()): spec for spec in specs}.values())


def plan(spec: RunSpec, *, results: Path) -> Plan:
    """Work out a run's key. Raises KfbenchError if a teacher is missing or does not suit, or data are not here."""
    found = tuple(
        teacher_store.find(name, spec=spec, index=index, results=results) for index, name in enumerate(spec.teachers)
    )
    student = _student(spec)
    for teacher in found:
        suitability.require(student, teacher.known)
    values = identity.of(spec, [teacher.digest for teacher in found])
    return Plan(spec, digest(values), values, found)


def _student(spec: RunSpec) -> Student:
    method, task = registry.recorded_method(spec.method, spec.settings), registry.load_task(spec.task)
    return Student(method, spec.method, task, spec.recipe, None, task.labels(spec.recipe))


def setup(plan: Plan, *, device: torch.device) -> Setup:
    """Load data and teachers, and make the student. Raises KfbenchError for a teacher that does not suit."""
    spec = plan.spec
    task = registry.load_task(spec.task)
    method = registry.recorded_method(spec.method, spec.settings)
    teachers = [teacher.load() for teacher in plan.teachers]
    student = _student(spec)
    for teacher in teachers:
        suitability.require(student, suitability.loaded(teacher))
    training = training_of(task.kind)
    others = {
        name: (other, training.load(other, budgets.recipe(other, spec.budget), device))
        for name, other in identity.stage_tasks(method, spec).items()
    }
    return assemble(spec, method, teachers, training.load(task, spec.recipe, device), others, device=device)


def assemble(
    spec: RunSpec,
    method: Method,
    teachers: list[Teacher],
    data: Any,
    others: dict[str, tuple[Declared, Any]],
    *,
    device: torch.device,
) -> Setup:
    """Make the student and all that its loop works with; `others` are its stages' tasks, each with its data."""
    rng = seeding.stream(spec.seed, "method")
    declared = registry.load_task(spec.task)
    training = training_of(declared.kind)
    task = training.make_task(spec, declared, data)
    for teacher in teachers:
        teacher.network.to(device).to(memory_format=torch.channels_last)
    student = student_of(method, task, teachers, rng)
    student.to(device).to(memory_format=torch.channels_last)
    stages = {name: (training.make_task(spec, other, its_data), its_data) for name, (other, its_data) in others.items()}
    return Setup(spec, method, student, teachers, task, device, rng, data, stages)


def compile_networks(setup: Setup) -> None:
    """Compile the student's networks in place, where no hook reads or rewrites their layers: those it would freeze.

    Hooks that come and go later are heeded: by default torch goes on with what it compiled without them.
    """
    import torch._dynamo.config  # loads the compiler

    torch._dynamo.config.skip_nnmodule_hook_guards = False
    for network in setup.student.modules():
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        if isinstance(network, Network) and not hooked:
            network.compile()


def training_for(spec: RunSpec) -> Training[Any, Any]:
    """Return what the kind of a run's task brings."""
    return training_of(registry.kind_of(spec.task))


def make_loop(setup: Setup) -> Loop:
    """Make the training loop of the task's kind."""
    return training_for(setup.spec).make_loop(setup)
