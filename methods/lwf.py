"""Learning without forgetting: the teacher's network is fine-tuned while its old head keeps answering as before.

Source: Li & Hoiem 2016, "Learning without Forgetting", arXiv 1606.09282, section 3: the new head alone, then all by
    L = CE(new) + w · H(recorded old, old now),  both old answers' probabilities raised to 1/T and normalised again,
    that is softened at T = 2 (without T², as there); w = 1 (section 3, and FACIL's src/approach/lwf.py).
Differs: old answers are asked of the frozen teacher for each augmented view, not recorded once an image. The warm-up
ends at a set share of the budget, not at convergence. The score is that of the new task; the old head is not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kfbench.methods import Batch, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer import losses
from kfbench.transfer.companion import WithCompanions
from kfbench.transfer.transplant import below_head, carry, freeze_body, old_head


@dataclass(frozen=True)
class LearningWithoutForgetting(Method):
    """Settings of learning without forgetting."""

    weight: Annotated[float, Ge(0)] = 1.0  # of the old answers
    temperature: Annotated[float, Gt(0)] = 2.0
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1  # share of the budget for the new head alone; choice

    kinds = ("images",)
    has_t2 = False
    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    search = {"weight": {"low": 0.1, "high": 10.0, "log": True}, "temperature": {"low": 1.0, "high": 4.0}}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The new head alone, then everything."""
        joint = Stage("joint", 1 - self.warmup)
        return (Stage("head", self.warmup), joint) if self.warmup else (joint,)

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> WithCompanions:
        """Return the teacher's body below a fresh head, and its old head beside it."""
        network = task.make_network()
        carry(teachers[0].network, network)
        return WithCompanions(network, old=old_head(teachers[0].network))

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Freeze all but the new head while it warms up."""
        assert isinstance(student, WithCompanions)
        student.stage = stage.name
        freeze_body(student.network, frozen=stage.name == "head")
        student.parts.requires_grad_(stage.name == "joint" and self.weight > 0)

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss and, past the warm-up, the cross-entropy of the old head to the teacher's answers."""
        assert isinstance(student, WithCompanions)
        if student.stage == "head" or not self.weight:
            output: Output = student(batch.images)
            return output, task.loss(output, batch)
        with below_head(student.network) as taken:
            output = student(batch.images)
        now: Tensor = student.parts["old"](taken[0])  # [B, K of the teacher]
        before = losses.softened(teachers[0].at(student.network.shape)(batch).logits, self.temperature)
        old = losses.cross_entropy(before, now / self.temperature)
        return output, task.loss(output, batch) | {"old": self.weight * old}

    def export(self, student: nn.Module) -> Network:
        """The network with its new head."""
        return cast(WithCompanions, student).network
