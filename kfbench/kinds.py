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
    metric: str  # of a record's scores, what a table shows: "error", "return"
    unit: str  # of what training goes through: "images", "frames"
    example: str  # its smallest task, on which methods are checked
    higher_is_better: bool = False  # of the metric
    score_unit: str = "%"  # of the metric
    scale: str = "normalised score"  # what a score is called on the scale that tasks share
    points: str = ""  # unit of a difference of goodness, as "points of accuracy"; default: of the metric
    length: str = ""  # the recipe's field that says how long a run is, and is the time axis of curves; none: its part
    length_unit: str = ""  # of that axis: "epoch", "million frames"
    length_scale: float = 1.0  # of the field, in one such unit
    acts: bool = False  # True if the student acts, and learns from what followed
    threads: int | None = None  # CPU threads of a run, unless others are asked for; None: torch's own number
    teachers: tuple[str, ...] = ()  # that advice names: a task that teaches others, then any; default: the example
    stages_have_data: bool = False  # True if a stage on another task has data of its own, which decide numbers

    @property
    def is_percent(self) -> bool:
        """True if scores are percentages, which have a mean over tasks as they are."""
        return self.score_unit == "%"

    @property
    def scored(self) -> str:
        """The metric with its unit, as an axis has it: "error, %"."""
        return f"{self.metric}, {self.score_unit}"

    @property
    def aimed(self) -> str:
        """What `goodness` is, with its unit: "100 - error, %"."""
        return self.scored if self.higher_is_better else f"100 - {self.scored}"

    @property
    def gained(self) -> str:
        """The unit of a difference, higher being better."""
        return self.points or f"points of {self.metric}"

    def duration(self, recipe: Mapping[str, Any]) -> tuple[float, str]:
        """Return how long a run of a recipe is, and in which unit; (1, "progress") where the kind has no length."""
        return (recipe[self.length] / self.length_scale, self.length_unit) if self.length else (1.0, "progress")

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

    def normalised(self, task: str, score: float) -> float | None:
        """Return a score of a task of this file on the scale that tasks share, 0 bad and 1 good; None if it has none.

        A percentage is a fraction of its best. `task` is the name as the user types it.
        """
        good = self.kind.goodness({self.kind.metric: score})
        return None if good is None or not self.kind.is_percent else good / 100

    def teacher(self, recipe: AnyRecipe) -> str:
        """Return the name of a teacher of this task that has the outputs of a student trained by a recipe."""
        return self.name

    def other_outputs(self, recipe: AnyRecipe, teacher: "Declared", trained: AnyRecipe) -> Refusal | None:
        """Say why the outputs of a teacher, trained by its own recipe, cannot be copied; None: they can."""
        if teacher.name == self.name:
            return None
        return Refusal(f"has the outputs of '{teacher.name}'", f"use --teachers {self.teacher(recipe)}, or {FEATURES}")
