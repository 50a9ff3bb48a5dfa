"""The tiny runs on which rules look at a method: made-up images, or a game, untrained teachers, a few steps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import resolve, stand_in
from kfbench.running.prepare import make_loop
from kfbench.spec import RunSpec
from kfbench.train.loop import Loop
from kfbench.train.setup import Setup

Rule = Callable[[RunSpec], None]
ROWS, BATCH, STEPS = 48, 16, 12
IMAGES = {"network": "cnn-4", "batch_size": BATCH, "epochs": STEPS * BATCH / ROWS, "evaluations": 2}
GAMES: dict[str, Any] = {
    "algorithm": "a2c",
    "optimizer": "adam",  # moves a weight however small its gradient
    "environments": 2,
    "rollout": 4,
    "frames": STEPS * 2 * 4 * 4,
    "noops": 0,
    "episode_frames": 160,
    "evaluations": 2,
    "evaluation_environments": 1,
    "test_episodes": 1,
    "evaluation_frames": 80,
}
# of a kind that is not here: the smoke budget of its example
RECIPES: dict[str, dict[str, Any]] = {"images": IMAGES, "games": GAMES}


class Broken(KfbenchError):
    """A method or task breaks a rule; the text says what was seen."""


def require_lines(about: str, file: str) -> None:
    """Raise Broken unless a docstring says where its file is from, and in what it differs."""
    if lacks := [repr(word) for word in ("Source:", "Differs:") if word not in about]:
        raise Broken(f"the docstring of {file} has no line {' and no line '.join(lacks)}")


def spec_of(name: str, settings: dict[str, Any] | None = None, *, kind: str = "images") -> RunSpec:
    """Return a tiny run of a method on the example task of a kind, about 12 steps long, for `stand_in.setup`."""
    method, example = registry.load_method(name, settings or {}), registry.kinds()[kind].example
    teachers: list[str] | None = [f"random:{example}"] * method.teachers[0]
    if kind == "images":  # the defaults, but small ones
        takes_outputs = method.needs == "outputs" and method.teachers[0] > 0
        teachers = [f"{example}/cnn-8"] * method.teachers[0] if takes_outputs else None
    if registry.split(name)[1] in method.instead_of_teachers:
        teachers = []  # as long as any other run here
    recipe = RECIPES.get(kind, {})
    return resolve.resolve(name, example, budget="smoke", teachers=teachers, recipe=recipe, settings=settings)


def live(spec: RunSpec) -> Setup:
    """Return what the loop of a run works with."""
    return stand_in.setup(spec, rows=ROWS)


def trained(setup: Setup, steps: int = STEPS) -> Loop:
    """Return a loop after so many optimiser steps."""
    loop = make_loop(setup)
    for _ in zip(range(steps), loop, strict=False):
        pass
    return loop


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Return the names of what is not bit-equal in another state."""
    return [name for name in one if name not in other or not torch.equal(one[name], other[name])]
