"""What a method's functions return, checked: a slip in a method's file is one line that names the function.

A loop asks here where a method would otherwise fail deep inside torch, or after the training, when a record is written.
"""

import contextlib
import math
import numbers
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from kfbench import networks
from kfbench.batch import Parts
from kfbench.errors import KfbenchError
from kfbench.methods import Group, Method
from kfbench.networks.hollow import hollow
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher


def parts_of(returned: Any) -> Parts:
    """Return the named parts of the loss. Raises KfbenchError if a method's `losses` returned something else."""
    wanted, is_pair = (
        "(output, parts), parts by name: {'mine': loss}",
        isinstance(returned, tuple) and len(returned) == 2,
    )
    if not is_pair:
        raise _slip("losses", returned, wanted)
    if not isinstance(returned[1], dict):
        raise _slip("losses", returned[1], wanted, part="parts")
    if not returned[1]:
        raise _slip("losses", returned, wanted, none=True)
    parts: Parts = returned[1]
    for name, part in parts.items():
        if not isinstance(part, Tensor):
            raise _slip("losses", part, "each as a scalar tensor", part=str(name))
        if part.ndim:
            shape = list(part.shape)
            raise KfbenchError(f"part '{name}' of the loss has shape {shape}; return its mean over the batch, a scalar")
    if torch.is_grad_enabled() and not any(part.requires_grad for part in parts.values()):
        raise KfbenchError("no part of the loss depends on what is trained; make one of the student's own output")
    return parts


def metrics_of(method: Method, student: nn.Module) -> dict[str, float]:
    """Return what a method measures as plain numbers, those that are not finite left out: a curve has none.

    Raises KfbenchError for what is no number.
    """
    told: Any = method.metrics(student)
    if not isinstance(told, dict):
        raise _slip("metrics", told, "numbers by name: {'norm': 1.5}")
    row = {}
    for name, value in told.items():
        is_number = isinstance(value, numbers.Real) or (isinstance(value, Tensor) and value.numel() == 1)
        if not isinstance(name, str) or not is_number:
            raise _slip("metrics", value, "each as one number", part=str(name))
        if math.isfinite(value):
            row[name] = float(value)
    return row


def student_of(method: Method, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> nn.Module:
    """Return the module that is trained. Raises KfbenchError if a method's `make_student` returned something else."""
    student: Any = method.make_student(task, teachers, rng)
    if not isinstance(student, nn.Module):
        raise _slip("make_student", student, "the module that is trained, the plain network or one that holds it")
    return student


def exported(method: Method, student: nn.Module) -> nn.Module:
    """Return the network that is kept. Raises KfbenchError if a method's `export` returned something else.

    A plain network has the weights that its name makes, no more and no less: only such a one can be read again.
    """
    returned: Any = method.export(student)
    if not isinstance(returned, nn.Module):
        raise _slip("export", returned, "the network that is kept, without teachers")
    kept: nn.Module = returned
    if isinstance(kept, Network) and not method.keeps_teachers:
        there, wanted = {*kept.state_dict()}, _weights(kept.name, kept.shape, kept.outputs)
        if wanted is not None and there != wanted:
            first = sorted(there ^ wanted)[0]
            how = "more" if first in there else "fewer"
            raise KfbenchError(
                f"'export' of the method returned a '{kept.name}' with {how} weights than one has (first '{first}'); "
                "return the plain network, or write keeps_teachers = True if what is kept is more"
            )
    return kept


@lru_cache(maxsize=8)
def _weights(name: str, shape: tuple[int, int, int], outputs: int) -> frozenset[str] | None:
    """Return the names in a network's state dict; None where it cannot be made without weights."""
    with hollow(), contextlib.suppress(NotImplementedError):
        return frozenset(networks.make(name.removesuffix(":pretrained"), shape=shape, outputs=outputs).state_dict())
    return None


def groups_of(method: Method, student: nn.Module) -> list[Group]:
    """Return the optimiser's groups. Raises KfbenchError if `parameter_groups` returned something else."""
    told: Any = method.parameter_groups(student)
    groups = list(told) if isinstance(told, list | tuple) else []
    wrong = next((each for each in groups if not (isinstance(each, dict) and "params" in each)), None)
    if wrong is not None or not isinstance(told, list | tuple):
        raise _slip("parameter_groups", told if wrong is None else wrong, "a list of groups: [{'params': [...]}]")
    return groups


def _slip(function: str, value: Any, wanted: str, *, part: str = "", none: bool = False) -> KfbenchError:
    article = "an" if type(value).__name__[:1].lower() in "aeiou" else "a"
    what = "None" if value is None else "no parts" if none else f"{article} {type(value).__name__}"
    what += f" ({value!r})" if isinstance(value, str | float | int) else ""
    what = f"'{part}' as {what}" if part else what
    return KfbenchError(f"'{function}' of the method returned {what}; return {wanted}")
