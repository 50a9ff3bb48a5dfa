"""How long a run will take on this machine now, from a few steps of its stand-in."""

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from kfbench import registry
from kfbench.errors import KfbenchError
from kfbench.running import equal_cost, prepare, stand_in
from kfbench.running.status import spoken as spoken
from kfbench.spec import Recipe, RunSpec
from kfbench.train.training import training_of

FEW, ENOUGH = 100, 1000  # optimiser steps: see `too_few`


def seconds(spec: RunSpec, *, device: str = "cpu", tried: int = 4, results: Path | None = None) -> float:
    """Return the expected seconds of a run's training, teachers and data loading aside.

    With `results`, teachers that lie there (`imported:`, `run:`) or anywhere are taken as large as they are.

    Evaluations are in it, but for games, whose episodes have no known length. Raises KfbenchError if the data are
    missing.
    """
    task = registry.load_task(spec.task)
    training = training_of(task.kind)
    return training.seconds(
        spec, task, lambda short, rows: stand_in.setup(short, rows=rows, device=device, results=results), tried=tried
    )


def too_few(specs: Iterable[RunSpec], *, are_teachers: bool = False) -> str:
    """Say which of some runs on images has the fewest steps, if these are too few to learn from; "" else.

    That is below 100: so many steps of AdamW at the mean of budget `small`'s rate, 1.5e-3, can move a weight by 0.15,
    which is about what it is at the start (0.12 where 16 channels go into a 3×3 convolution), and BatchNorm's running
    statistics forget the start in some 50. `small` makes 1,872 steps on CIFAR. Budget `smoke` is to learn nothing.
    """
    shortest: dict[int, RunSpec] = {}
    for spec in specs:
        if spec.budget != "smoke" and isinstance(spec.recipe, Recipe):
            with contextlib.suppress(KfbenchError):  # its data are not here
                shortest.setdefault(equal_cost.steps(spec), spec)
    count = min(shortest, default=FEW)
    if count >= FEW:
        return ""
    spec = shortest[count]
    recipe = Recipe.of(spec)
    epochs = -(-recipe.epochs * ENOUGH // count)
    longer = dataclasses.replace(spec, recipe=dataclasses.replace(recipe, epochs=epochs))
    what = f"teacher {prepare.called(spec)}" if are_teachers else f"{spec.method} on {spec.task}, {recipe.network},"
    typed = f"--teachers {prepare.called(spec)}:epochs" if are_teachers else "--set-recipe epochs"
    return (
        f"{what} makes {count} optimiser step{'s' if count > 1 else ''} in all, too few to learn much; "
        f"{typed}={epochs:.0f} makes {equal_cost.steps(longer):,}"
    )
