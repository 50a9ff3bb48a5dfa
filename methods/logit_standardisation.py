"""Distillation of standardised logits: the student matches how the teacher ranks the classes, not how far apart.

Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", arXiv 2403.01427, algorithm 1:
    L = λ_CE · CE + λ_KD · T² KL(softmax(Z(t) / T) || softmax(Z(z) / T)),  Z(z) = (z - mean z) / std z over the classes;
    λ_CE = 0.1, λ_KD = 9, T = 2 (the authors' README and tools/train.py, --logit-stand, `KD+Ours`).
Differs: nothing known. As a switch of other methods it is `kd/standardised` and `dkd/standardised`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class LogitStandardisation(Method):
    """Settings of distillation with standardised logits."""

    temperature: Annotated[float, Gt(0)] = 2.0  # the paper's base temperature
    hard: Annotated[float, Ge(0)] = 0.1  # weight of the labels
    weight: Annotated[float, Ge(0)] = 9.0  # of the soft targets

    kinds = ("images",)
    teachers = (1, 1)
    needs = "outputs"
    search = {
        "temperature": {"low": 1.0, "high": 6.0},
        "weight": {"low": 1.0, "high": 30.0, "log": True},
    }

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Cross-entropy and T² · KL of the standardised logits."""
        output: Output = student(batch.images)
        parts = {name: self.hard * part for name, part in task.loss(output, batch).items()}
        target = losses.softened(losses.standardised(teachers[0](batch).logits), self.temperature)
        soft = losses.distillation(losses.standardised(output.logits), target, self.temperature)
        return output, parts | {"distillation": self.weight * soft}
