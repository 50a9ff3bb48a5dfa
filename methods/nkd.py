"""Normalised distillation: the target's probability is learnt softly, the others' as a distribution of their own.

Source: Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation", arXiv 2303.13005:
    L = CE - t_y log s_y - γ T² sum_{c≠y} t̂_c log ŝ_c,  t, s the softmax, t̂, ŝ the softmax at T without the target y;
    γ = 3.5, T = 3 on CIFAR-100 (the authors' yzd-v/cls_KD, configs/distillers/cifar100), 1.5 and 1 on ImageNet.
Differs: nothing known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench.errors import KfbenchError
from kfbench.methods import Batch, Method, Output, Parts
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class NormalisedDistillation(Method):
    """Settings of normalised distillation."""

    temperature: Annotated[float, Gt(0)] = 3.0  # of the classes beside the target
    gamma: Annotated[float, Ge(0)] = 3.5  # weight of the classes beside the target

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    search = {
        "temperature": {"low": 1.0, "high": 8.0, "log": True},
        "gamma": {"low": 0.5, "high": 8.0, "log": True},
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the task's network. Raises KfbenchError for a single class."""
        if task.outputs < 2:
            raise KfbenchError(f"nkd tells the class from the others, but '{task.name}' has one; use kd")
        return task.make_network()

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, the target's and the others'."""
        assert batch.labels is not None
        output: Output = student(batch.images)
        target, others = normalised(output.logits, teachers[0](batch).logits, batch.labels, self.temperature)
        return output, task.loss(output, batch) | {"target": target, "non-target": self.gamma * others}


def normalised(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return -t_y log s_y and -T² sum_{c≠y} t̂_c log ŝ_c, means over the batch, from logits [B, K] and labels [B]."""
    own, theirs = logits.float(), teacher.float()
    place = labels[:, None]
    sure = F.softmax(theirs, dim=1).gather(1, place)  # [B, 1]
    target = -(sure * F.log_softmax(own, dim=1).gather(1, place)).mean()
    is_target = F.one_hot(labels, own.shape[1]).bool()
    rest = [(each / temperature).masked_fill(is_target, -1000) for each in (own, theirs)]  # finite: 0 · inf is nan
    return target, temperature**2 * losses.cross_entropy(F.softmax(rest[1], dim=1), rest[0])
