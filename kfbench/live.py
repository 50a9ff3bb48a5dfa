"""What a training loop works with, made from a run's spec; and the surface of a loop."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kfbench import images, seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method
from kfbench.networks.network import Network, Output
from kfbench.spec import GameRecipe, Recipe, RunSpec
from kfbench.tasks import GameTask, ImageTask, Task
from kfbench.teachers import Teacher

if TYPE_CHECKING:
    from kfbench.memory import Memory


class Loop(Protocol):
    """A training loop (`train/supervised.py`, `train/actor_critic.py`), made from a `Live`.

    `total` steps, and the `position` among them; iterating trains, and yields a new row of the curve or None after each
    step. `best` holds the weights with the best validation score, `status()` what a progress bar shows; `state()` and
    `restore(state)` are a checkpoint; `score(networks)` is the one reading of the test split.
    """

    total: int
    position: int
    seconds: float
    curve: list[dict[str, float]]
    best: dict[str, Tensor]

    def __iter__(self) -> Iterator[dict[str, float] | None]: ...
    def status(self) -> dict[str, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
    def score(self, networks: dict[str, nn.Module]) -> dict[str, dict[str, float]]: ...


@dataclass
class Live:
    """What a training loop works with."""

    spec: RunSpec
    method: Method
    student: nn.Module
    teachers: list[Teacher]
    task: Task
    device: torch.device
    rng: torch.Generator  # the method's stream; part of every checkpoint
    data: Any  # `images.Images`; None in games
    others: dict[str, tuple[Task, images.Split]] = field(default_factory=dict)  # {task of a stage: itself, its images}
    memory: "Memory | None" = None  # of what the teachers say to the training images, where views are fixed


@dataclass
class Prepared:
    """What is known of a run before its student is made."""

    key: str
    identity: dict[str, Any]
    method: Method
    declared: ImageTask | GameTask
    teachers: list[Teacher]
    data: Any
    data_checksum: str | None  # of the images, or of the ROM
    others: dict[str, Any] = field(default_factory=dict)  # {task of a stage: its `images.Images`}


def make_live(spec: RunSpec, prepared: Prepared, *, device: torch.device) -> Live:
    """Make the student and all that its loop works with, on the device."""
    rng = seeding.stream(spec.seed, "method")
    method, data, declared = prepared.method, prepared.data, prepared.declared
    if isinstance(declared, ImageTask):
        task = image_task(spec, spec.task, data)
        data = data.to(device)
    else:
        from kfbench.train.actor_critic import make_task

        assert isinstance(spec.recipe, GameRecipe)
        task = make_task(spec, declared)
    for teacher in prepared.teachers:
        teacher.network.to(device).to(memory_format=torch.channels_last)
    student = method.make_student(task, prepared.teachers, rng)
    student.to(device).to(memory_format=torch.channels_last)
    others = {name: (image_task(spec, name, other), other.train.to(device)) for name, other in prepared.others.items()}
    return Live(spec, method, student, prepared.teachers, task, device, rng, data, others)


def image_task(spec: RunSpec, name: str, data: images.Images) -> Task:
    """Return what a method is told of an image task on which a run trains."""
    from kfbench.train.supervised import steps

    assert isinstance(spec.recipe, Recipe)
    return Task(
        name=name,
        kind="images",
        shape=cast(tuple[int, int, int], tuple(data.train.images.shape[1:])),
        classes=data.classes,
        network=spec.recipe.network,
        seed=spec.seed,
        train_size=len(data.train),
        steps=steps(spec.recipe, len(data.train)),
        objective=CrossEntropy(spec.recipe.label_smoothing),
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
    )


@dataclass(frozen=True)
class CrossEntropy:
    """The supervised task's own loss, the mean over the batch in nats."""

    smoothing: float = 0.0

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Return {"cross-entropy": []}."""
        assert batch.labels is not None
        return {"cross-entropy": F.cross_entropy(output.logits.float(), batch.labels, label_smoothing=self.smoothing)}


def compile_networks(live: Live) -> None:
    """Compile the student's networks in place, where no hook reads or rewrites their layers: those it would freeze."""
    for network in live.student.modules():
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        if isinstance(network, Network) and not hooked:
            network.compile()


def make_loop(live: Live) -> Loop:
    """Make the training loop of the task's kind."""
    if live.task.kind == "images":
        from kfbench.train.supervised import Supervised

        return Supervised(live)
    from kfbench.train.actor_critic import ActorCritic

    return ActorCritic(live)


def torch_device(name: str) -> torch.device:
    """Return a device that is there. Raises KfbenchError."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KfbenchError(f"no device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise KfbenchError(f"no GPU '{name}': torch sees {torch.cuda.device_count()}; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise KfbenchError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    return device
