"""How long a run will take on this machine now, from a few steps of its stand-in."""

import statistics
import time
from pathlib import Path

from kfbench import registry
from kfbench.data import images
from kfbench.run import execute, records, stand_in, teacher_names
from kfbench.run.device import torch_device
from kfbench.run.status import spoken as spoken
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import ImageTask
from kfbench.train.actor_critic import ActorCritic
from kfbench.train.loop import Watcher
from kfbench.train.supervised import Supervised, steps


def seconds(spec: RunSpec, *, device: str = "cpu", tried: int = 4) -> float:
    """Return the expected seconds of a run's training, teachers and data loading aside.

    Evaluations are in it, but for games, whose episodes have no known length. Raises KfbenchError if the data are
    missing.
    """
    if isinstance(spec.recipe, GameRecipe):
        game = ActorCritic(stand_in.setup(spec, device=device))
        game.advance()
        started = time.perf_counter()
        game.advance()
        return (time.perf_counter() - started) * game.total
    declared = registry.load_task(spec.task)
    assert isinstance(declared, ImageTask)
    data = images.load(declared, spec.recipe.train_size)
    batch_size = min(spec.recipe.batch_size, len(data.train))
    warm = 2
    loop = Supervised(
        stand_in.setup(stand_in.shortened(spec, steps=4 * (warm + tried)), rows=batch_size, device=device)
    )
    times = []
    turns = iter(loop)
    for _ in range(warm + tried):
        started = time.perf_counter()
        next(turns)
        loop.status()  # waits for the device
        times.append(time.perf_counter() - started)
    step = statistics.median(times[warm:])
    evaluating = spec.recipe.evaluations * len(data.val) / batch_size / 3  # forward only: a third of a step
    return step * (steps(spec.recipe, len(data.train)) + evaluating)


def missing_teachers(spec: RunSpec, *, results: Path) -> list[RunSpec]:
    """Return the runs that would train the teachers which the store lacks."""
    place = torch_device("cpu")
    missing = []
    for name in spec.teachers:
        asked = teacher_names.read(name, budget=spec.budget)
        if asked.kind != "trained":
            continue
        wanted = asked.spec()
        key = execute.prepare(wanted, results=results / "teachers", device=place, watcher=Watcher()).key
        if not records.path_of(results / "teachers", key, wanted).with_suffix(".safetensors").is_file():
            missing.append(wanted)
    return missing
