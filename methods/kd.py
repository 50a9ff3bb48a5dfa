"""Distillation: the student matches the softened class probabilities of one or several teachers.

Source: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2:
    L = (1 - a) · CE(y, q) + a · T² · KL(p_T || q_T), several teachers averaged as an ensemble's soft targets.
    Defaults T = 4, a = 0.9: RepDistiller (HobbitLong), run_cifar_distill.sh.
Differs: nothing known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class Distillation(Method):
    """Settings of Hinton's loss."""

    temperature: Annotated[float, Gt(0)] = 4.0
    alpha: Annotated[float, Ge(0), Le(1)] = 0.9  # weight of the soft targets; the labels get 1 - alpha

    kinds = ("images",)
    teachers = (1, None)
    needs = "outputs"
    search = {"temperature": {"low": 1.0, "high": 20.0, "log": True}, "alpha": {"low": 0.1, "high": 1.0}}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Cross-entropy and T² · KL to the mean of the teachers' soft targets."""
        output: Output = student(batch.images)
        hard = {name: part * (1 - self.alpha) for name, part in task.loss(output, batch).items()}
        target = torch.stack([losses.softened(teacher(batch).logits, self.temperature) for teacher in teachers]).mean(0)
        soft = losses.distillation(output.logits, target, self.temperature)
        return output, {**hard, "distillation": self.alpha * soft}
