"""The runs of image tasks: data on the device, the supervised loop, and what they cost."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kfbench import seeding
from kfbench.data import images
from kfbench.data.images import Images, Split
from kfbench.networks.network import Network
from kfbench.spec import Recipe, RunSpec
from kfbench.tasks import ImageTask, Task
from kfbench.train.loop import phases
from kfbench.train.memory import Memory
from kfbench.train.objective import CrossEntropy
from kfbench.train.setup import Setup
from kfbench.train.supervised import Supervised, steps
from kfbench.train.training import StandIn, Training

CALIBRATED_ON = 500  # training images
SLOW = 2.0  # seconds of a step of which one tells enough: nobody waits for the time that a run will take


class ImageTraining(Training[ImageTask, Recipe]):
    """Runs over labelled images."""

    def load(self, task: ImageTask, recipe: Recipe, device: torch.device) -> Images:
        """Return the training and validation images; the test split is read when it is asked for."""
        return images.load(task, recipe.train_size).to(device)

    def require(self, task: ImageTask, recipe: Recipe) -> None:
        """Raise KfbenchError for more training images than there are; labels are counted, no image is read."""
        images.require(task, recipe.train_size)

    def make_task(self, spec: RunSpec, task: ImageTask, data: Images) -> Task:
        """Return what a method is told of an image task on which a run trains."""
        recipe = Recipe.of(spec)
        channels, height, width = data.train.images.shape[1:]
        return Task(
            name=task.name,
            kind=task.kind.name,
            shape=(channels, height, width),
            classes=data.classes,
            network=recipe.network,
            seed=spec.seed,
            train_size=len(data.train),
            steps=steps(recipe, len(data.train)),
            objective=CrossEntropy(recipe.label_smoothing),
            mean=tuple(data.mean.tolist()),
            std=tuple(data.std.tolist()),
            recipe=recipe,
        )

    def make_loop(self, setup: Setup) -> Supervised:
        """Return the supervised loop."""
        return Supervised(setup)

    def made_up(self, task: ImageTask, rows: int, device: torch.device) -> Images:
        """Return noise in the form of a task's data, each class in turn; there is no test split."""
        rng = seeding.stream(0, "stand-in", task.name)
        labels = torch.arange(rows) % task.outputs
        tint = torch.randint(0, 128, (task.outputs, task.shape[0], 1, 1), generator=rng, dtype=torch.uint8)
        noise = torch.randint(0, 128, (rows, *task.shape), generator=rng, dtype=torch.uint8)
        split = Split(noise + tint[labels], labels)
        mean, std = images.statistics(split)
        classes = tuple(str(number) for number in range(task.outputs))
        return Images(split, split, classes, mean, std, None, tuple(range(task.outputs))).to(device)

    def settle(self, network: Network, task: ImageTask) -> None:
        """Normalise by the task's images, and calibrate BatchNorm on some of them.

        Without that an untrained network's deeper features would vanish or explode, and the control would be a straw
        man.
        """
        data = images.load(task)
        network.normalise_by(data.mean, data.std)
        calibrate(network, images.to_float(data.train.span(0, CALIBRATED_ON)))

    def described(self, data: Images) -> dict[str, str]:
        """Return how the data's images came to their size, where they were resized."""
        return {"resized": data.pack.resized} if data.pack and data.pack.resized else {}

    def memory(
        self, setup: Setup, folder: Path, *, source: dict[str, Any], say: Callable[[str], None]
    ) -> Memory | None:
        """Return the memory of a run whose recipe fixes the views of an image, and that has teachers."""
        recipe = Recipe.of(setup.spec)
        if recipe.views is None or not setup.teachers:
            return None
        source = {**source, "keep": setup.data.keep}
        return Memory(
            folder, recipe, setup.data.train, shape=setup.task.shape, device=setup.device, source=source, say=say
        )

    def seen(self, task: ImageTask, recipe: Recipe) -> int:
        """Return the images; where the recipe takes all, the data set's labels are counted."""
        rows = images.counts(task)[0] if recipe.train_size is None else recipe.train_size
        return round(recipe.epochs * rows)

    def longer(self, recipe: Recipe, factor: float) -> Recipe:
        """Return the recipe with more epochs."""
        return dataclasses.replace(recipe, epochs=round(recipe.epochs * factor, 2))

    def seconds(self, spec: RunSpec, task: ImageTask, stand_in: StandIn, *, tried: int) -> float:
        """Return the seconds of all steps by the median of a few in each phase, evaluations among them."""
        recipe = Recipe.of(spec)
        whole, held = images.counts(task)
        rows = recipe.train_size or whole
        size, warm, short = min(recipe.batch_size, rows), 2, 1000
        loop = Supervised(stand_in(still(spec, steps=short), size))
        mean, turns, total = 0.0, iter(loop), steps(recipe, rows)
        for first, last in phases(loop.setup.method, short):
            loop.skip(first)
            times = []
            its = max(1, round(total * (last - first) / short))  # the run's own steps in this phase
            for _ in range(min(warm + tried, last - first, its)):
                started = time.perf_counter()
                next(turns)
                loop.status()  # waits for the device
                times.append(time.perf_counter() - started)
                if len(times) > 1 and times[-1] > SLOW:
                    break
            mean += statistics.median(times[warm:] or times[-1:]) * (last - first) / short
        evaluating = recipe.evaluations * held / size / 3  # forward only: a third of a step
        return mean * (total + evaluating)


def shortened(spec: RunSpec, *, steps: int) -> RunSpec:
    """Return a spec whose stand-in of one batch of rows trains for `steps` steps, evaluated once, at the end."""
    recipe = dataclasses.replace(Recipe.of(spec), epochs=steps, train_size=None, evaluations=1)
    return dataclasses.replace(spec, recipe=recipe)


def still(spec: RunSpec, *, steps: int) -> RunSpec:
    """Return a shortened spec whose weights hardly move: what only shows what a step costs must not diverge."""
    short = shortened(spec, steps=steps)
    return dataclasses.replace(short, recipe=dataclasses.replace(Recipe.of(short), lr=1e-9))


def calibrate(network: Network, taken: torch.Tensor) -> None:
    """Set BatchNorm's running statistics from one pass over images [B, C, H, W]."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain average, here of one batch
    with torch.no_grad(), seeding.global_stream(0, "calibrate"):
        network.train()(taken)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
