"""From a run's spec to all that its training loop works with."""

from dataclasses import dataclass, field
from typing import Any

import torch

from kfbench import seeding
from kfbench.methods import Method
from kfbench.networks.network import Network
from kfbench.spec import GameRecipe, RunSpec
from kfbench.tasks import GameTask, ImageTask
from kfbench.teachers import Teacher
from kfbench.train import actor_critic, supervised
from kfbench.train.loop import Loop
from kfbench.train.setup import Setup


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
