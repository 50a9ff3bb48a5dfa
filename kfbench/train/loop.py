"""From a run's spec to its training loop; and the surface that both loops have."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kfbench import seeding
from kfbench.errors import KfbenchError
from kfbench.methods import Method
from kfbench.networks.network import Network
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import GameTask, ImageTask
from kfbench.teachers import Teacher
from kfbench.train import actor_critic, supervised
from kfbench.train.setup import Setup


class Loop(Protocol):
    """A training loop (`train/supervised.py`, `train/actor_critic.py`), made from a `Setup`.

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


def make_setup(spec: RunSpec, prepared: Prepared, *, device: torch.device) -> Setup:
    """Make the student and all that its loop works with, on the device."""
    rng = seeding.stream(spec.seed, "method")
    method, data, declared = prepared.method, prepared.data, prepared.declared
    if isinstance(declared, ImageTask):
        task = supervised.make_task(spec, spec.task, data)
        data = data.to(device)
    else:
        assert isinstance(spec.recipe, GameRecipe)
        task = actor_critic.make_task(spec, declared)
    for teacher in prepared.teachers:
        teacher.network.to(device).to(memory_format=torch.channels_last)
    student = method.make_student(task, prepared.teachers, rng)
    student.to(device).to(memory_format=torch.channels_last)
    others = {
        name: (supervised.make_task(spec, name, other), other.train.to(device))
        for name, other in prepared.others.items()
    }
    return Setup(spec, method, student, prepared.teachers, task, device, rng, data, others)


def compile_networks(setup: Setup) -> None:
    """Compile the student's networks in place, where no hook reads or rewrites their layers: those it would freeze."""
    for network in setup.student.modules():
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        if isinstance(network, Network) and not hooked:
            network.compile()


def make_loop(setup: Setup) -> Loop:
    """Make the training loop of the task's kind."""
    return supervised.Supervised(setup) if setup.task.kind == "images" else actor_critic.ActorCritic(setup)


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
