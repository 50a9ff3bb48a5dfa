"""The surface that both training loops have, who looks on, and what they share."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

from torch import Tensor, nn

from kfbench.batch import Batch
from kfbench.errors import KfbenchError
from kfbench.methods import Method, Stage
from kfbench.spec import RunSpec
from kfbench.train.setup import Setup

Row = dict[str, float]  # of a curve


class Loop(Protocol):
    """A training loop (`train/supervised.py`, `train/actor_critic.py`), made from its `setup`.

    `total` steps, and the `position` among them; iterating trains, and yields a new row of the curve or None after each
    step. `best` holds the weights with the best validation score, `status()` what a progress bar shows; `state()` and
    `restore(state)` are a checkpoint; `score(networks)` is the one reading of the test split. `stage` is the number of
    the stage that has begun, -1 before the first; `batch()` draws a batch and learns nothing: rules ask for them.
    """

    setup: Setup
    total: int
    position: int
    stage: int
    seconds: float
    curve: list[Row]
    best: dict[str, Tensor]

    def __iter__(self) -> Iterator[Row | None]: ...
    def batch(self) -> Batch: ...
    def status(self) -> Row: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
    def score(self, networks: dict[str, nn.Module]) -> dict[str, Row]: ...


class Watcher:
    """Is told what happens; this one does not listen. The command line shows a progress bar."""

    def say(self, line: str) -> None:
        """Take one line of news."""

    def begin(self, key: str, spec: RunSpec) -> None:
        """A run with this key is going to be trained; `start` follows."""

    def start(self, spec: RunSpec, loop: Loop) -> None:
        """A training loop begins."""

    def step(self, loop: Loop, row: Row | None) -> None:
        """One more step is done, with a row of the curve if there was an evaluation."""

    def stop(self) -> None:
        """The loop is over, however it ended."""


def spans(stages: tuple[Stage, ...], total: int) -> list[tuple[Stage, int, int]]:
    """Return each stage with its first step and the step after its last; together they fill the budget."""
    shares = [stage.share for stage in stages]
    if abs(sum(shares) - 1) > 1e-6 or min(shares) <= 0:
        raise KfbenchError(f"the shares of a method's stages must be above 0 and sum to 1, not {shares}")
    ends = [round(total * sum(shares[: i + 1])) for i in range(len(shares))]
    starts = [0, *ends[:-1]]
    return [(stage, first, last) for stage, first, last in zip(stages, starts, ends, strict=True) if last > first]


def phases(method: Method, total: int) -> list[tuple[int, int]]:
    """Return the first step, and the step after the last, of each part of a run whose steps cost alike.

    They are the method's stages, and what lies before and after its teachers leave, as far as a thousandth shows.
    """
    looks = min(total, 1000)
    seen = [(step, method.is_attached(step / total)) for step in (round(total * i / looks) for i in range(looks))]
    begins = {first for _, first, _ in spans(method.stages, total)}
    begins |= {step for (_, before), (step, now) in pairwise(seen) if now != before}
    return list(pairwise([*sorted(begins), total]))


def set_training(student: nn.Module) -> None:
    """Put a student in training mode, but for modules whose own weights are all frozen: their buffers must not move."""
    student.train()
    for module in student.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(weight.requires_grad for weight in own):
            module.training = False  # not what is below it, whose weights may be trained
