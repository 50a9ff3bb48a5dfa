"""The contract of a task, and the package `kfbench.tasks` whose files lie in the folder `tasks/`.

A task file holds one `TASK = ImageTask(…)` or `TASK = GameTask(…)` made of literals, so that `kfbench list` can read it
without importing it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from kfbench import networks, seeding
from kfbench.batch import Batch
from kfbench.data import sources
from kfbench.errors import KfbenchError, near
from kfbench.folders import folders
from kfbench.networks.network import Network, Output

__path__ = folders("tasks")  # makes Python look for `kfbench.tasks.cifar100` in the folder `tasks/`


@dataclass(frozen=True)
class ImageTask:
    """What a file in `tasks/` declares of an image task. See `kfbench/data/sources.py` for how the data are found.

    A file gives the first block, from literals; `at` fills in the second, and follows a variant: a named one, a range
    of classes (`cifar100/0-49`, both ends kept), or, where `any_dataset` says so, the name of an imported folder.
    A file that leaves shape and classes at zero has them from the description of its imported data set, read by `at`.
    """

    shape: tuple[int, int, int] = (0, 0, 0)  # C, H, W; zeros: as the data set has it
    classes: int = 0  # number of classes of the data set; 0: as many as it has
    sources: tuple[str, ...] = ()  # default teachers' tasks
    dataset: str = ""  # name in the data folder; "": the file's own name
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> fields that differ
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # see `kfbench/run/budgets.py`
    any_dataset: bool = False  # True if a variant names a data set: `imagefolder/flowers`
    kind: Literal["images"] = "images"

    name: str = ""  # as the user types it: "cifar100/0-49"
    keep: tuple[int, ...] | None = None  # class indices of the data set that this task keeps; None: all

    @property
    def outputs(self) -> int:
        """Number of classes that this task keeps."""
        return self.classes if self.keep is None else len(self.keep)

    def at(self, stem: str, variant: str = "") -> "ImageTask":
        """Return the task of file `stem`, at a variant ("", "low", "0-49", "5k/0-4").

        Raises KfbenchError for an unknown variant, a range outside the classes, and a data set that must tell shape and
        classes but is not on this machine.
        """
        task = replace(self, name=stem, dataset=self.dataset or stem)
        parts = variant.split("/") if variant else []
        if task.any_dataset:
            if not parts:
                raise KfbenchError(f"task '{stem}' needs a name: {stem}/NAME, after kfbench data import NAME PATH…")
            task = replace(task, name=f"{stem}/{parts[0]}", dataset=parts[0])
            parts = parts[1:]
        for part in parts:
            task = task._named(part) if part in task.variants else task._described()._range(part)
        return task._described()

    def _described(self) -> "ImageTask":
        """Return the task with shape and classes; from its data set's description where the file leaves them open."""
        if all(self.shape):
            return self
        pack = sources.find(self.dataset)
        return replace(self, shape=pack.shape, classes=len(pack.classes))

    def _named(self, part: str) -> "ImageTask":
        return replace(self, **{**self.variants[part], "name": f"{self.name}/{part}", "variants": {}})

    def _range(self, part: str) -> "ImageTask":
        found = re.fullmatch(r"(\d+)-(\d+)", part)
        if found is None:
            named = near(part, self.variants) if self.variants else "there is only the whole"
            raise KfbenchError(f"no variant '{part}' of task '{self.name}'; {named} (or a range of classes, as 0-4)")
        first, last = int(found[1]), int(found[2])
        if first > last or last >= self.outputs:
            raise KfbenchError(f"task '{self.name}' has no classes '{part}'; it has 0-{self.outputs - 1}")
        below, above = (0, first - 1), (last + 1, self.outputs - 1)
        others = [f"{self.name}/{low}-{high}" for low, high in (below, above) if low <= high]
        keep = tuple(range(first, last + 1)) if self.keep is None else self.keep[first : last + 1]
        sources = (others[0],) if len(others) == 1 else self.sources
        return replace(self, name=f"{self.name}/{part}", keep=keep, sources=sources, variants={})


@dataclass(frozen=True)
class GameTask:
    """What `tasks/atari.py` declares: every game is a variant, run as `atari/pong`. See `games/emulators.py`."""

    sources: tuple[str, ...] = ()  # default teachers' tasks; a game is never its own
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # budget -> fields of GameRecipe
    kind: Literal["games"] = "games"

    name: str = ""  # as records have it: "atari/riverraid"
    game: str = ""  # ale-py's name of it
    shape: tuple[int, int, int] = (4, 84, 84)  # of an observation

    def at(self, stem: str, variant: str = "") -> "GameTask":
        """Return the task of file `stem` at a game. Raises KfbenchError if there is no such game."""
        from kfbench.games import emulators

        if not variant:
            raise KfbenchError(f"task '{stem}' needs a game: {stem}/pong, or another that ale-py carries")
        game = emulators.rom(variant)
        name = f"{stem}/{game}"
        return replace(self, name=name, game=game, sources=tuple(other for other in self.sources if other != name))

    def actions(self, *, full: bool = False) -> tuple[str, ...]:
        """Return the names of the game's actions: those it understands, or all 18 of the console."""
        from kfbench.games import emulators

        return emulators.actions(self.game, full=full)


@dataclass(frozen=True)
class Task:
    """What a method is told of the task it runs on."""

    name: str
    kind: str  # "images" or "games"
    shape: tuple[int, int, int]  # C, H, W of an image or an observation
    classes: tuple[str, ...]  # names of the outputs: classes, or actions
    network: str
    seed: int  # of the run
    train_size: int  # rows of the training split; 0 in games
    steps: int  # optimiser steps of the whole run
    objective: Callable[[Output, Batch], dict[str, Tensor]]
    mean: tuple[float, ...] | None = None  # of the training images, a channel each, in 0..1
    std: tuple[float, ...] | None = None
    full_actions: bool = False  # whether every game has the console's 18 actions

    @property
    def outputs(self) -> int:
        """Number of classes or actions."""
        return len(self.classes)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return the task's own parts: cross-entropy; or policy, value and entropy."""
        return self.objective(output, batch)

    def make_network(self) -> Network:
        """Return the student's plain network; the same bits for every method of this task, network and seed."""
        with seeding.global_stream(self.seed, "init"):
            network = networks.make(self.network, shape=self.shape, outputs=self.outputs)
        pretrained = self.network.endswith(":pretrained")  # keeps the statistics of what it was trained on
        if self.mean is not None and self.std is not None and not pretrained:
            network.normalise_by(torch.tensor(self.mean), torch.tensor(self.std))
        return network
