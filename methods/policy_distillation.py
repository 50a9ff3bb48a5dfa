"""Policy distillation: the student imitates a teacher in the states that the teacher visits; no reward is used.

Source: Rusu et al. 2016, "Policy Distillation", arXiv 1511.06295, section 3:
    L = KL(softmax(q_T / tau) || softmax(q_S)),  on the teacher's own trajectories.
Differs: teachers are actor-critics, not DQNs: q_T is the logits of a policy, which need no sharpening, so tau is 1 (the
source sharpens action values, by 0.01). The latest rollout is learnt from, not a replay memory. The value head of the
student is not trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt
from torch import nn

from kfbench.methods import Batch, Group, Method, Output, Parts
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses


@dataclass(frozen=True)
class PolicyDistillation(Method):
    """Settings of policy distillation."""

    tau: Annotated[float, Gt(0)] = 1.0  # divides the teacher's logits; choice
    actor: Literal["teacher", "student"] = "teacher"  # who plays

    kinds = ("games",)
    teachers = (1, 1)
    needs = "outputs"
    search = {"tau": {"low": 0.1, "high": 2.0, "log": True}, "actor": {"choices": ["teacher", "student"]}}

    def act(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, progress: float
    ) -> tuple[Output, Parts]:
        """What the one who plays says, and the teacher's logits to learn from."""
        said = teachers[0](batch)
        if self.actor == "student":
            return student(batch.images), {"teacher": said.logits}
        value = (
            said.logits.new_zeros(len(said.logits)) if said.value is None else said.value
        )  # which nothing here reads
        return Output(said.logits, value), {"teacher": said.logits}

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The divergence of the student's policy from the teacher's, and nothing else."""
        output: Output = student(batch.images)
        target = losses.softened(batch.extras["teacher"], self.tau)
        return output, {"distillation": losses.kl(target, output.logits)}

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """All but the value head, which nothing here trains."""
        return [{"params": [w for name, w in student.named_parameters() if not name.startswith("body.value")]}]
