"""What a kind of task brings for its runs: data, what a method is told, the loop, and what all that costs.

Images have `train/images.py`, games `train/games.py`; the kind names its own (`Kind.training`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from kfbench.errors import KfbenchError
from kfbench.kinds import Declared, Kind
from kfbench.networks.network import Network
from kfbench.spec import AnyRecipe, RunSpec
from kfbench.tasks import Task
from kfbench.train.loop import Loop
from kfbench.train.memory import Memory
from kfbench.train.setup import Setup

T = TypeVar("T", bound=Declared)
R = TypeVar("R", bound=AnyRecipe)
StandIn = Callable[[RunSpec, int], Setup]  # (spec, made-up rows) -> what its loop works with, teachers untrained
BACKWARD = 2  # a backward pass costs about two forward passes


class Training(ABC, Generic[T, R]):
    """The runs of a kind of task; it holds no state. Without defaults are the four that every kind has to bring."""

    untimed: ClassVar[str] = ""  # what `seconds` leaves out, in words

    @abstractmethod
    def load(self, task: T, recipe: R, device: torch.device) -> Any:
        """Return what a run trains on and validates with, on the device. Raises KfbenchError if it is not there."""

    @abstractmethod
    def make_task(self, spec: RunSpec, task: T, data: Any) -> Task:
        """Return what a method is told of a task, the run's own or a stage's; `data` is what `load` gave."""

    @abstractmethod
    def make_loop(self, setup: Setup) -> Loop:
        """Return the training loop."""

    @abstractmethod
    def made_up(self, task: T, rows: int, device: torch.device) -> Any:
        """Return stand-ins for what `load` gives, with `rows` training examples: noise, made without data."""

    def require(self, task: T, recipe: R) -> None:
        """Raise KfbenchError for a recipe that `load` cannot serve, as far as can be told before loading."""

    def require_student(self, setup: Setup) -> None:
        """Raise KfbenchError for a student that the loop could not train, as far as its making does not tell."""

    def settle(self, network: Network, task: T) -> None:
        """Give an untrained teacher of this task the input statistics with which it would have been trained."""

    def without_data(self, network: Network, task: T) -> None:
        """Do the same for a stand-in's teacher, as far as it can be done without data."""

    def described(self, data: Any) -> dict[str, str]:
        """Return what a kept student's file says of the data that `load` gave, beside task and classes."""
        return {}

    def memory(
        self, setup: Setup, folder: Path, *, source: dict[str, Any], say: Callable[[str], None]
    ) -> Memory | None:
        """Return the memory of what teachers say to training examples; None where they are asked anew in every step."""
        return None

    def seen(self, task: T, recipe: R) -> int:
        """Return how many examples training goes through. Raises KfbenchError if this is not known of the kind."""
        raise KfbenchError(f"what training on '{task.name}' costs is not known; use another variant of the method")

    def passes(self, recipe: R) -> int:
        """Return how many forward passes the training on one example is worth."""
        return 1 + BACKWARD

    def longer(self, recipe: R, factor: float) -> R:
        """Return the recipe with so many times the training."""
        raise NotImplementedError

    def seconds(self, spec: RunSpec, task: T, stand_in: StandIn, *, tried: int) -> float:
        """Return the expected seconds of a run's training, from `tried` steps of its stand-in."""
        raise NotImplementedError


def training_of(kind: Kind) -> Training[Any, Any]:
    """Return what a kind brings for its runs."""
    module, _, name = kind.training.partition(":")
    training: Training[Any, Any] = getattr(import_module(module), name)()
    return training
