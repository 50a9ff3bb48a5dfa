"""The contract of a task, and the package `kfbench.tasks` whose files lie in the folder `tasks/`.

A task file holds one `TASK = ImageTask(…)` or `TASK = GameTask(…)` made of literals, so that `kfbench list` can read it
without importing it. What the two have in common, and a third kind of task has to bring, is in `kinds.py`.

Reports and lists read declarations, and do without torch: what needs it is imported where it is used.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

from kfbench import networks
from kfbench.errors import KfbenchError, near
from kfbench.folders import folders
from kfbench.games.reference import human_normalised
from kfbench.kinds import FEATURES, Declared, Kind, Refusal
from kfbench.spec import AnyRecipe, GameRecipe, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from kfbench.batch import Batch
    from kfbench.networks.network import Network, Output

__path__ = folders("tasks")  # makes Python look for `kfbench.tasks.cifar100` in the folder `tasks/`


IMAGES = Kind(
    "images",
    Recipe,
    "kfbench.train.images:ImageTraining",
    "error",
    "images",
    "digits",
    points="points of accuracy",
    length="epochs",
    length_unit="epoch",
    teachers=("cifar10", "torchvision:resnet18:pretrained"),
    stages_have_data=True,
)
GAMES = Kind(
    "games",
    GameRecipe,
    "kfbench.train.games:GameTraining",
    "return",
    "frames",
    "atari/pong",
    higher_is_better=True,
    score_unit="game points",
    scale="human-normalised score",
    points="game points",
    length="frames",
    length_unit="million frames",
    length_scale=1e6,
    acts=True,
    threads=1,  # two on busy cores are far slower
)


@dataclass(frozen=True, kw_only=True)
class ImageTask(Declared):
    """What a file in `tasks/` declares of an image task. See `kfbench/data/sources.py` for how the data are found.

    A file gives the first block, from literals; `at` fills in the second, and follows a variant: a named one, a range
    of classes (`cifar100/0-49`, both ends kept), or, where `any_dataset` says so, the name of an imported folder.
    A file that leaves shape and classes at zero has them from the description of its imported data set, read by `at`.
    """

    kind = IMAGES

    def __post_init__(self) -> None:
        whole = all(type(number) is int for number in (self.classes, *self.shape))
        if not whole or len(self.shape) != 3:
            raise TypeError(f"shape is (C, H, W) and classes a number, not {self.shape!r} and {self.classes!r}")
        if not isinstance(self.variants, Mapping):
            raise TypeError(
                f'variants is {{name: fields that differ}}, as {{"low": {{"keep": (0, 1)}}}}, not {self.variants!r}'
            )
        keep = self.keep
        if keep is not None and not (
            isinstance(keep, tuple | list) and keep and len({*keep}) == len(keep) and all(map(_is_index, keep))
        ):
            raise TypeError(f"keep holds the numbers of classes from 0, each once, as (0, 1, 2), not {keep!r}")

    classes: int = 0  # number of classes of the data set; 0: as many as it has
    dataset: str = ""  # name in the data folder; "": the file's own name
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> fields that differ
    any_dataset: bool = False  # True if a variant names a data set: `imagefolder/flowers`

    keep: tuple[int, ...] | None = None  # class indices of the data set that this task keeps; None: all

    @property
    def outputs(self) -> int:
        """Number of classes that this task keeps."""
        return self.classes if self.keep is None else len(self.keep)

    def at(self, stem: str, variant: str = "") -> Self:
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

    def _described(self) -> Self:
        """Return the task with shape and classes; from its data set's description where the file leaves them open."""
        if all(self.shape):
            return self
        from kfbench.data import sources  # torch

        pack = sources.find(self.dataset)
        return replace(self, shape=pack.shape, classes=len(pack.classes))

    def labels(self, recipe: AnyRecipe) -> tuple[str, ...]:
        """Return the names of the classes. Raises KfbenchError if the data set is not here, or is of another kind."""
        from kfbench.data import images  # torch

        return images.classes(self)

    def checksum(self) -> str:
        """Return the sha256 of the whole data set, whatever part of it the task takes."""
        from kfbench.data import sources  # torch

        return sources.find(self.dataset).checksum

    def fitted(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a budget's fields: who keeps a part of the classes gets that part of the training images."""
        size = fields.get("train_size")
        if self.keep is None or size in (None, "all"):
            return dict(fields)
        return {**fields, "train_size": max(len(self.keep), round(size * len(self.keep) / self.classes))}

    def other_outputs(self, recipe: AnyRecipe, teacher: Declared, trained: AnyRecipe) -> Refusal | None:
        """Say that a teacher of another task has other classes."""
        if teacher.name == self.name:
            return None
        return Refusal("has other classes", f"use --teachers {self.name}, or {FEATURES}")

    def _named(self, part: str) -> Self:
        what, known = f"variant '{part}' of task '{self.name}'", {each.name for each in fields(self)} - {"name"}
        if not isinstance(self.variants[part], Mapping):
            raise KfbenchError(f'{what} is not written as {{"{part}": {{"keep": (0, 1)}}}}, the fields that differ')
        changes = dict(self.variants[part])
        if strange := sorted(set(changes) - known):
            raise KfbenchError(f"{what} has a field '{strange[0]}', which tasks have not; {near(strange[0], known)}")
        try:
            changes["budgets"] = {**self.budgets, **changes.get("budgets", {})}  # those it leaves out are the file's
            return replace(self, **{**changes, "name": f"{self.name}/{part}", "variants": {}})
        except TypeError as error:
            raise KfbenchError(f"{what} cannot be made: {error}") from error

    def _range(self, part: str) -> Self:
        match = re.fullmatch(r"(\d+)-(\d+)", part)
        if match is None:
            named = near(part, self.variants) if self.variants else "there is only the whole"
            raise KfbenchError(f"no variant '{part}' of task '{self.name}'; {named} (or a range of classes, as 0-4)")
        first, last = int(match[1]), int(match[2])
        if first > last or last >= self.outputs:
            raise KfbenchError(f"task '{self.name}' has no classes '{part}'; it has 0-{self.outputs - 1}")
        others = [(low, high) for low, high in ((0, first - 1), (last + 1, self.outputs - 1)) if low <= high]
        low, high = others[0] if len(others) == 1 else (0, 0)
        keep = tuple(range(first, last + 1)) if self.keep is None else self.keep[first : last + 1]
        sources = (f"{self.name}/{low}-{high}",) if low < high else self.sources  # a teacher has two classes at least
        return replace(self, name=f"{self.name}/{part}", keep=keep, sources=sources, variants={})


def _is_index(number: Any) -> bool:
    return type(number) is int and number >= 0


@dataclass(frozen=True, kw_only=True)
class GameTask(Declared):
    """What `tasks/atari.py` declares: every game is a variant, run as `atari/pong`. See `games/emulators.py`."""

    kind = GAMES

    game: str = ""  # ale-py's name of it
    shape: tuple[int, int, int] = (4, 84, 84)  # of an observation

    @property
    def outputs(self) -> int:
        """All actions of the console; a game that understands fewer has fewer, unless the recipe says otherwise."""
        return 18

    def at(self, stem: str, variant: str = "") -> Self:
        """Return the task of file `stem` at a game. Raises KfbenchError if there is no such game."""
        from kfbench.games import emulators  # torch

        if not variant:
            raise KfbenchError(f"task '{stem}' needs a game: {stem}/pong, or another that ale-py carries")
        game = emulators.rom(variant)
        name = f"{stem}/{game}"
        return replace(self, name=name, game=game, sources=tuple(other for other in self.sources if other != name))

    def actions(self, *, full: bool = False) -> tuple[str, ...]:
        """Return the names of the game's actions: those it understands, or all 18 of the console."""
        from kfbench.games import emulators  # torch

        return emulators.actions(self.game, full=full)

    def normalised(self, task: str, score: float) -> float | None:
        """Return the human-normalised score of a game; None where no reference is known."""
        return human_normalised(task.rpartition("/")[2], score)

    def placeholders(self, recipe: AnyRecipe) -> tuple[str, ...]:
        """Return the names of the actions."""
        assert isinstance(recipe, GameRecipe)
        return self.actions(full=recipe.full_actions)

    def teacher(self, recipe: AnyRecipe) -> str:
        """Return the name of a teacher of this game that has a student's set of actions."""
        assert isinstance(recipe, GameRecipe)
        return f"{self.name}@:full_actions=true" if recipe.full_actions else self.name

    def checksum(self) -> str:
        """Return the digest of the game's ROM."""
        from kfbench.games import emulators  # torch

        return emulators.checksum(self.game)

    def other_outputs(self, recipe: AnyRecipe, teacher: Declared, trained: AnyRecipe) -> Refusal | None:
        """Say that a teacher is of no game, or has other actions: other games share the console's whole set only."""
        own = f"use --teachers {self.teacher(recipe)}, or {FEATURES}"
        if teacher.kind is not GAMES:
            return Refusal(f"is of {teacher.kind.name}", own)
        assert isinstance(recipe, GameRecipe) and isinstance(trained, GameRecipe)
        if teacher.name == self.name:  # some games understand all 18 as they are
            same = self.placeholders(trained) == self.placeholders(recipe)
            return None if same else Refusal("has another set of actions", own)
        if recipe.full_actions and trained.full_actions:
            return None
        remedy = f"use --set-recipe full_actions=true and --teachers {teacher.name}@:full_actions=true"
        return Refusal(f"has the actions of '{teacher.name}'", remedy)


@dataclass(frozen=True)
class Task:
    """What a method is told of the task it runs on."""

    name: str
    kind: str  # its kind's name: "images" or "games"
    shape: tuple[int, int, int]  # C, H, W of an image or an observation
    classes: tuple[str, ...]  # names of the outputs: classes, or actions
    network: str
    seed: int  # of the run
    train_size: int  # rows of the training split; 0 in games
    steps: int  # optimiser steps of the whole run
    objective: "Callable[[Output, Batch], dict[str, Tensor]]"
    mean: tuple[float, ...] | None = None  # of the training images, a channel each, in 0..1
    std: tuple[float, ...] | None = None
    recipe: AnyRecipe | None = None  # how the run trains
    acts: bool = False  # whether the student acts: it then has a value head, and learns from what followed

    @property
    def outputs(self) -> int:
        """Number of classes or actions."""
        return len(self.classes)

    def loss(self, output: "Output", batch: "Batch") -> "dict[str, Tensor]":
        """Return the task's own parts: cross-entropy; or policy, value and entropy.

        Raises KfbenchError for what is no Output.
        """
        from kfbench.networks.network import output_of  # torch

        return self.objective(output_of(output), batch)

    def make_network(self) -> "Network":
        """Return the student's plain network; the same bits for every method of this task, network and seed."""
        import torch

        from kfbench import seeding  # torch

        with seeding.global_stream(self.seed, "init"):
            network = networks.make(self.network, shape=self.shape, outputs=self.outputs)
        pretrained = self.network.endswith(":pretrained")  # keeps the statistics of what it was trained on
        if self.mean is not None and self.std is not None and not pretrained:
            network.normalise_by(torch.tensor(self.mean), torch.tensor(self.std))
        return network
