"""The contract of a method, and the package `kfbench.methods` whose files lie in the folder `methods/`.

A method is a frozen dataclass of settings with a few functions, all of which have defaults: a baseline overrides what
sets it apart. Everything a run has to remember (mixing weights, memory banks, genotypes) lives in the module that
`make_student` returns, as parameters and buffers, so that one `state_dict` is a checkpoint.
"""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import nn

from kfbench.batch import Batch, Parts, Trajectory
from kfbench.errors import KfbenchError
from kfbench.folders import folders
from kfbench.networks.network import Network, Output
from kfbench.tasks import Task
from kfbench.teachers import Teacher

# what a method's file needs of the contract, from one place
__all__ = ["Batch", "Group", "Method", "Output", "Parts", "Stage", "Task", "Teacher", "Trajectory"]

__path__ = folders("methods")  # makes Python look for `kfbench.methods.kf` in the folder `methods/`

Group = dict[str, Any]
NEEDS = ("nothing", "features", "outputs", "architecture")


@dataclass(frozen=True)
class Stage:
    """A part of the budget with an optimiser and a schedule of its own; `task` names another task to train on.

    A method leaves that choice to a setting `source`; where it is empty, `resolve` fills in the tasks of the run's
    teachers, or the task's first default source, several joined by "+".
    """

    name: str
    share: float = 1.0
    task: str | None = None


@dataclass(frozen=True)
class Method:
    """A way of training a student. Subclass it in `methods/<name>.py`; its fields are the settings."""

    kinds: ClassVar[tuple[str, ...]] = ()  # of tasks that it is for: "images", "games"; none: any
    teachers: ClassVar[tuple[int, int | None]] = (0, 0)  # fewest and most teachers; None: any number
    needs: ClassVar[str] = (
        "nothing"  # of a teacher: "features", "outputs" (same classes) or "architecture" (same network)
    )
    teacher_is_twin: ClassVar[bool] = False  # True if its default teacher has the student's network, not a larger one
    keeps_teachers: ClassVar[bool] = False  # True if what is kept is more than the student's plain network
    trains_a_part: ClassVar[bool] = False  # True if a step trains only some of the parameters of `parameter_groups`
    acts_ahead: ClassVar[bool] = True  # False if it must not play the next rollout beside learning: no `overlap`
    starts_from_teacher: ClassVar[bool] = False  # True if the student's initial weights come from a teacher
    has_t2: ClassVar[bool] = True  # False if soft targets at a temperature T lack the factor T² that keeps their size
    of_teachers: ClassVar[str] = ""  # what each must be, where that is more or less than `needs` says; docs print it
    above_floor: ClassVar[str] = ""  # why a step takes over 1.25 of its floor; `kfbench bench` prints it
    revision: ClassVar[int] = 1  # raise it when a change of the method changes its numbers
    younger: ClassVar[dict[str, Any]] = {}  # setting -> its value in records older than it: specs leave it out there
    by_optimizer: ClassVar[dict[str, dict[str, Any]]] = {}  # the recipe's optimizer -> defaults that differ with it
    variants: ClassVar[dict[str, dict[str, Any]]] = {}  # name -> settings, run as `method/name`
    instead_of_teachers: ClassVar[tuple[str, ...]] = ()  # variants trained longer by what the teachers would have cost
    search: ClassVar[dict[str, dict[str, Any]]] = {}  # setting -> {"low", "high", "log"} or {"choices"}
    variant_search: ClassVar[dict[str, dict[str, Any]]] = {}  # variant -> its own; else `search` less what it sets
    search_by_optimizer: ClassVar[dict[str, dict[str, Any]]] = {}  # the recipe's optimizer -> ranges that differ

    @classmethod
    def serves(cls, kind: str) -> bool:
        """Say whether the method is for a kind of task."""
        return not cls.kinds or kind in cls.kinds

    def settings(self) -> dict[str, Any]:
        """Return the settings as a spec has them: all but the `younger` ones that are as in older records."""
        return {name: v for name, v in asdict(self).items() if name not in self.younger or v != self.younger[name]}

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> nn.Module:
        """Return the module that is trained. The plain network comes first, from `task.make_network()`."""
        return task.make_network()

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Return the student's output and the named parts of the loss, each a scalar mean over the batch."""
        output = student(batch.images)
        return output, task.loss(output, batch)

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """Return what the student, teachers attached, says now, and tensors [B, …] to remember with these rows.

        Games act with it and hand the tensors back in `batch.extras`; images use it only to score the student with its
        teachers at an evaluation (under `torch.no_grad()`, in eval mode). With the recipe's `overlap` it runs beside
        `losses`, on another thread, with a student and teachers of its own: its random numbers are from `batch.rng`.
        """
        return student(batch.images), {}

    def is_attached(self, progress: float) -> bool:
        """Say whether `act` differs from the exported student at this point: teachers still help."""
        return False

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The parts of the budget; their shares sum to 1."""
        return (Stage("train"),)

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Prepare a stage: re-initialise, freeze, measure over `batches` (one pass over the training split).

        After a resume it is called again, before the checkpoint is loaded over what it did.
        """

    def observe(self, student: nn.Module, scores: Sequence[float]) -> None:
        """Take note of scores, higher is better: a validation accuracy in %, or the returns of training episodes.

        Those that ended in a rollout, if any did, are told together, after the steps that learn from it.
        """

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """Return optimiser groups: {"params": […], "lr_scale": 1.0, "weight_decay": …}; only "params" has to be."""
        return [{"params": [p for p in student.parameters() if p.requires_grad]}]

    def metrics(self, student: nn.Module) -> dict[str, float]:
        """Return numbers for the curve, at an evaluation; those that are not finite are left out."""
        return {}

    def export(self, student: nn.Module) -> nn.Module:
        """Return the network that is kept, without teachers and without touching the live student.

        It may share memory with the student; the caller copies what it keeps.
        """
        if not isinstance(student, Network):
            made = type(student).__name__
            raise KfbenchError(f"method {type(self).__name__} trains a {made}; write 'export', the plain network of it")
        return student


@lru_cache(maxsize=128)
def misfit(made: type[Method]) -> str:
    """Say what a method's class writes that would be passed over in silence, or fail when it is called; "" if nothing.

    A misspelt function, an attribute that is no setting, parameters that differ from the contract's.
    """
    if not _is_range(made.teachers):
        return f"teachers = {made.teachers!r} is no range; write (fewest, most), as (1, 1), or (1, None) for any number"
    if made.needs not in NEEDS:
        return f"needs = {made.needs!r} is not known; write one of {', '.join(NEEDS)}"
    contract, settings = dir(Method), {field.name for field in fields(made)}
    if taken := sorted(settings & {*contract}):
        return f"'{taken[0]}' is no setting, but a part of what a method is; write it without a type"
    for name, value in vars(made).items():
        if name.startswith("_") or name in settings:
            continue
        if name not in contract:
            close = get_close_matches(name, contract, n=1, cutoff=0.75)
            if close and close[0] not in vars(made):  # else it is a helper of its own
                return f"nothing looks at '{name}'; did you mean '{close[0]}'?"
            constant = "ClassVar" in str(made.__annotations__.get(name, ""))
            if not constant and not callable(value) and not hasattr(value, "__get__"):
                return f"'{name}' is no setting; give it a type, and the class @dataclass(frozen=True)"
        elif inspect.isfunction(value) and (said := _called_otherwise(name, value)):
            return said
    return ""


def _is_range(teachers: Any) -> bool:
    if not (isinstance(teachers, tuple) and len(teachers) == 2):
        return False
    fewest, most = teachers
    return type(fewest) is int and fewest >= 0 and (most is None or (type(most) is int and most >= fewest))


def _called_otherwise(name: str, own: Any) -> str:
    """Say how a function of the contract is called, if one's own cannot be called so."""
    known = getattr(Method, name)
    if isinstance(known, property):
        return f"'{name}' is read, not called; write @property above it"
    if not callable(known):
        return ""
    names = list(inspect.signature(known).parameters)
    try:
        inspect.signature(own).bind(*names)
    except TypeError:
        mine = ", ".join(inspect.signature(own).parameters)
        return f"'{name}' takes ({mine}), but is called with ({', '.join(names)})"
    return ""
