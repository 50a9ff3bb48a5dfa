"""What a training loop works with: a run's student, teachers, task and data, on their device."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kfbench.methods import Method
from kfbench.spec import RunSpec
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.train.memory import Memory


@dataclass
class Setup:
    """What a training loop works with."""

    spec: RunSpec
    method: Method
    student: nn.Module
    teachers: list[Teacher]
    task: Task
    device: torch.device
    rng: torch.Generator  # the method's stream; part of every checkpoint
    data: Any  # what the kind's `Training.load` gave: `images.Images`; None in games
    others: dict[str, tuple[Task, Any]] = field(default_factory=dict)  # {task of a stage: itself, its data}
    memory: Memory | None = None  # of what the teachers say to the training images, where views are fixed
