"""Kickstarting: an agent learns by reward and, at first, also follows its teachers in the states that it visits.

Source: Schmitt et al. 2018, "Kickstarting Deep Reinforcement Learning", arXiv 1803.03835, section 3:
    L = L_RL + sum_k w_k(t) · H(pi_k(.|x) || pi(.|x)),  H the cross-entropy, on the student's own trajectories.
Differs: the source lets population-based training set w_k; here it falls linearly from `weight` to 0 at `until`, the
same for all teachers (the source's hand schedule, with figures of our own choice).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import nn

from kfbench.methods import Batch, Method, Output, Parts
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class Kickstarting(Method):
    """Settings of the schedule."""

    weight: Annotated[float, Ge(0)] = 1.0  # w at the start; choice
    until: Annotated[float, Gt(0), Le(1)] = 0.5  # progress at which w is 0; choice

    kinds = ("games",)
    teachers = (1, None)
    needs = "outputs"
    search = {"weight": {"low": 0.1, "high": 10.0, "log": True}, "until": {"low": 0.1, "high": 1.0}}

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """What the student says, and what each teacher would do, as logits, to learn from."""
        output: Output = student(batch.images)
        if progress >= self.until:
            return output, {}
        return output, {str(k): teacher(batch).logits for k, teacher in enumerate(teachers)}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The actor-critic's loss, and the weighted cross-entropy to each teacher's policy."""
        output: Output = student(batch.images)
        weight = self.weight * max(0.0, 1 - progress / self.until)
        follow = {
            f"teacher {k}": weight * losses.cross_entropy(F.softmax(said.float(), dim=1), output.logits)
            for k, said in batch.extras.items()
        }
        return output, task.loss(output, batch) | follow
