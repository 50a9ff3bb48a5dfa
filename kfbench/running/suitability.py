"""Whether a teacher suits a method and a task: judged here alone, by what is known of the teacher at the time.

When a spec is resolved only its name is known; when the run begins its network is there. A rule that asks for what is
not known yet passes.
"""

from dataclasses import dataclass

from kfbench.data.named import PARTS
from kfbench.errors import KfbenchError, warn_once
from kfbench.kinds import FEATURES, Declared, Refusal
from kfbench.methods import Method
from kfbench.networks.network import Network
from kfbench.spec import AnyRecipe
from kfbench.teachers import Teacher
from kfbench.transfer.transplant import misfit


@dataclass(frozen=True)
class Student:
    """Whom the teacher is for."""

    method: Method
    name: str  # the method's, with its variant
    task: Declared
    recipe: AnyRecipe
    network: Network | None  # without its weights; None: of a library
    classes: tuple[str, ...] = ()  # names of its outputs; empty: not known yet


@dataclass(frozen=True)
class Candidate:
    """A teacher, as far as it is known: None means not yet."""

    name: str
    task: Declared | None = None
    recipe: AnyRecipe | None = None  # how it is trained
    network: str | None = None  # its name
    body: Network | None = None  # with or without its weights
    classes: tuple[str, ...] | None = None  # names of its outputs; empty: they have none


def loaded(teacher: Teacher) -> Candidate:
    """Return what is known of a teacher once it is there."""
    network = teacher.network
    return Candidate(
        teacher.name, network=network.name.removesuffix(":pretrained"), body=network, classes=teacher.classes
    )


class Unsuitable(KfbenchError):
    """A teacher cannot serve, in one line with what to do."""


def require(student: Student, teacher: Candidate) -> None:
    """Raise Unsuitable if a teacher cannot serve, or was trained on images that the student is tested on."""
    own, theirs = (getattr(task, "dataset", "") for task in (student.task, teacher.task))
    if own and PARTS.get(own) == theirs and not teacher.name.startswith("random:"):
        raise Unsuitable(
            f"teacher '{teacher.name}' was trained on images that '{student.task.name}' is tested on, a part of "
            f"'{theirs}'; use a teacher of another task"
        )
    judge = {"features": _features, "outputs": _outputs, "architecture": _architecture}.get(student.method.needs)
    refusal = judge(student, teacher) if judge else None
    if refusal is not None:
        needs = {"features": "reads features", "outputs": "copies outputs", "architecture": "copies weights"}
        raise Unsuitable(
            f"method '{student.name}' {needs[student.method.needs]}, but teacher '{teacher.name}' {refusal.why}; "
            f"{refusal.remedy}"
        )


def _features(student: Student, teacher: Candidate) -> Refusal | None:
    if teacher.body is not None and not teacher.body.layers:
        return Refusal("is of a network whose layers are not known", "use a teacher of one of kfbench list networks")
    return None


def _outputs(student: Student, teacher: Candidate) -> Refusal | None:
    if teacher.classes is not None and student.classes:
        count = len(teacher.classes) if teacher.body is None else teacher.body.outputs
        same = teacher.classes == student.classes if teacher.classes else count == len(student.classes)
        remedy = f"use --teachers {student.task.teacher(student.recipe)}, or {FEATURES}"
        if same and not teacher.classes:
            warn_once(
                f"teacher '{teacher.name}' does not say which classes its {count} outputs are; they are taken for "
                f"those of '{student.task.name}', in their order"
            )
        return None if same else Refusal(f"has {count} others than those of '{student.task.name}'", remedy)
    if teacher.task is None or teacher.recipe is None:
        return None
    return student.task.other_outputs(student.recipe, teacher.task, teacher.recipe)


def _architecture(student: Student, teacher: Candidate) -> Refusal | None:
    wanted = student.recipe.network
    kind = student.task.kind
    if teacher.task and teacher.task.kind is not kind:
        like = f"use a teacher of {kind.name}, as {kind.example}/{wanted}"
        return Refusal(f"is of {teacher.task.kind.name}, not of {kind.name}", like)
    if teacher.network is not None and teacher.network != wanted:
        where = f"--teachers {teacher.task.name}/{wanted} or " if teacher.task else ""
        return Refusal(
            f"is a '{teacher.network}', not the student's '{wanted}'", f"use {where}--network {teacher.network}"
        )
    found = misfit(teacher.body, student.network) if teacher.body and student.network else None
    return found and Refusal(f"has other sizes: {found.why}", found.remedy)
