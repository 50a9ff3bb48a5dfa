"""Distillation: the student matches the softened class probabilities of one or several teachers.

Source: Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2:
    L = (1 - a) · CE(y, q) + a · T² · KL(p_T || q_T), several teachers averaged as an ensemble's soft targets.
    Defaults T = 4, a = 0.9: RepDistiller (HobbitLong), run_cifar_distill.sh.
Variant `standardised`, Sun et al. 2024, arXiv 2403.01427: logits are standardised first, T = 2; `logit_standardisation`
    has that paper's weights too.
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
    standardise: bool = False  # compare logits less their mean, over their standard deviation

    kinds = ("images",)
    teachers = (1, None)
    needs = "outputs"
    younger = {"standardise": False}
    variants = {"standardised": {"standardise": True, "temperature": 2.0}}
    search = {"temperature": {"low": 1.0, "high": 20.0, "log": True}, "alpha": {"low": 0.1, "high": 1.0}}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """Cross-entropy and T² · KL to the mean of the teachers' soft targets."""
        output: Output = student(batch.images)
        hard = {name: part * (1 - self.alpha) for name, part in task.loss(output, batch).items()}
        own, *theirs = (output.logits, *(teacher(batch).logits for teacher in teachers))
        if self.standardise:
            own, *theirs = (losses.standardised(each) for each in (own, *theirs))
        target = torch.stack([losses.softened(each, self.temperature) for each in theirs]).mean(0)
        soft = losses.distillation(own, target, self.temperature)
        return output, {**hard, "distillation": self.alpha * soft}
