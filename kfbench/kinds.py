"""What every task declares, whatever its kind, and what a kind of task is: the place to read before adding a third.

Reports and lists read declarations, and do without torch: what needs it is imported where it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

from kfbench.errors import KfbenchError
from kfbench.spec import AnyRecipe

FEATURES = "a method that takes features (kf)"


class Refusal(NamedTuple):
    """Why a teacher does not suit: what it does or is ("has other classes"), and what to do."""

    why: str
    remedy: str


@dataclass(frozen=True)
class Kind:
    """What all tasks of a kind share. Whoever would ask "images or games?" asks here.

    The other half, what their runs do, is a `Training` (`kfbench/train/training.py`); here is its name.
    """

    name: str  # as a method lists it in `kinds`
    recipe: type[AnyRecipe]  # how a student is trained
    training: str  # "module:Class" of its `Training`; a name, for whoever reads declarations does without torch
    metric: str  # of a record's scores, what a table shows
    unit: str  # of what training goes through: "images", "frames"
    example: str  # its smallest task, on which methods are checked
    higher_is_better: bool = False  # of the metric
    acts: bool = False  # True if the student acts, and learns from what followed
    threads: int | None = None  # CPU threads of a run, unless others are asked for; None: torch's own number
    stages_have_data: bool = False  # True if a stage on another task has data of its own, which decide numbers

    def goodness(self, scores: Mapping[str, float]) -> float | None:
        """Return the metric of scores, or of validation in a curve's row, as "higher is better" (100 - an error in %).

        None if it is not there.
        """
        metric = scores.get(self.metric, scores.get(f"val_{self.metric}"))
        return metric if metric is None or self.higher_is_better else 100 - metric


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a task file says of its task. Each kind of task has a subclass, which answers what is asked here."""

    kind: ClassVar[Kind]

    shape: tuple[int, int, int] = (0, 0, 0)  # C, H, W of what a network takes
    sources: tuple[str, ...] = ()  # default teachers' tasks
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # see `kfbench/running/budgets.py`

    name: str = ""  # as the user types it, filled in by `at`: "cifar100/0-49"

    @property
    def outputs(self) -> int:
        """Number of a network's outputs; the most there can be, where the recipe decides it."""
        raise NotImplementedError

    def at(self, stem: str, variant: str = "") -> Self:
        """Return the task of file `stem` at a variant. Raises KfbenchError for an unknown one."""
        if variant:
            raise KfbenchError(f"no variant '{variant}' of task '{stem}'; there is only the whole")
        return replace(self, name=stem)

    def labels(self, recipe: AnyRecipe) -> tuple[str, ...]:
        """Return the names of the outputs. Raises KfbenchError if the data that tell them are not on this machine."""
        return self.placeholders(recipe)

    def placeholders(self, recipe: AnyRecipe) -> tuple[str, ...]:
        """Return names for the outputs that need no data: numbers, where only data have names."""
        return tuple(str(number) for number in range(self.outputs))

    def checksum(self) -> str:
        """Return what tells these data from others, without reading them: it is part of a run's key."""
        raise NotImplementedError

    def fitted(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a budget's fields as they are for this task."""
        return dict(fields)

    def other_outputs(self, recipe: AnyRecipe, teacher: "Declared", trained: AnyRecipe) -> Refusal | None:
        """Say why the outputs of a teacher, trained by its own recipe, cannot be copied; None: they can."""
        if teacher.name == self.name:
            return None
        return Refusal(f"has the outputs of '{teacher.name}'", f"use --teachers {self.name}, or {FEATURES}")
