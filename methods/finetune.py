"""Fine-tuning: the student starts as a copy of its teacher, with new heads.

Source: variants `all` (everything is trained) and `last` (only the heads: a linear probe) are baselines 3 and 2 of Rusu
et al. 2016, "Progressive Neural Networks", arXiv 1606.04671; `l2sp` is Li, Grandvalet & Davoine 2018, "Explicit
Inductive Bias for Transfer Learning", arXiv 1802.01483: a/2 · |w - w0|² on what was carried over, b/2 · |w|² on the new
heads, in place of weight decay; biases and normalisation are free (model/network_base.py, mode 1).
Differs: a = 1e-4, b = 1e-3, the strengths of the authors' plain weight decay; their L2-SP has a = 0.1, b = 0.01 for a
ResNet-101 that hardly has to move (run_classification/train.sh). The narrow networks of the small budget move by
|w - w0|² = 950 when they are fine-tuned, which that a would charge with 47 nats. On 10,000 images of CIFAR-100, from
10,000 of CIFAR-10, the validation error is 77.2 % with the authors' strengths, 68.7 % with a = 0.001 and b = 0.01,
66.7 % with ours, and 65.2 % without (`all`): none that was tried beats plain fine-tuning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from kfbench.methods import Batch, Group, Method, Output, Parts, Stage
from kfbench.networks.network import Network
from kfbench.tasks import Task
from kfbench.teachers import Teacher
from kfbench.transfer.transplant import carry, freeze_body, groups, is_head


@dataclass(frozen=True)
class Finetune(Method):
    """Settings of fine-tuning."""

    train: Literal["all", "last"] = "all"  # everything, or the heads alone
    body_rate: Annotated[float, Gt(0)] = 1.0  # learning rate of what was carried over, as a multiple of the heads'
    start_penalty: Annotated[float, Ge(0)] = 0.0  # a of L2-SP
    head_penalty: Annotated[float, Ge(0)] = 0.0  # b of L2-SP

    teachers = (1, 1)
    needs = "architecture"
    starts_from_teacher = True
    # choice: the strengths of "l2sp", see above
    variants = {"all": {}, "last": {"train": "last"}, "l2sp": {"start_penalty": 1e-4, "head_penalty": 1e-3}}
    search = {"body_rate": {"low": 0.01, "high": 1.0, "log": True}}
    variant_search = {
        "last": {},
        "l2sp": {
            "body_rate": {"low": 0.01, "high": 1.0, "log": True},
            "start_penalty": {"low": 1e-5, "high": 0.1, "log": True},
            "head_penalty": {"low": 1e-5, "high": 0.1, "log": True},
        },
    }

    def make_student(self, task: Task, teachers: Sequence[Teacher], rng: torch.Generator) -> Network:
        """Return the task's network with the teacher's weights, buffers and normalisation below fresh heads."""
        student = task.make_network()
        carry(teachers[0].network, student)
        return student

    def begin(
        self,
        student: nn.Module,
        teachers: Sequence[Teacher],
        stage: Stage,
        batches: Iterable[Batch],
        rng: torch.Generator,
    ) -> None:
        """Freeze the body of a linear probe."""
        assert isinstance(student, Network)
        freeze_body(student, frozen=self.train == "last")

    def losses(
        self, student: nn.Module, teachers: Sequence[Teacher], batch: Batch, task: Task, progress: float
    ) -> tuple[Output, Parts]:
        """The task's loss, and the penalties of L2-SP where they are not zero."""
        assert isinstance(student, Network)
        output: Output = student(batch.images)
        parts = task.loss(output, batch)
        if not (self.start_penalty or self.head_penalty):
            return output, parts
        weights = [(n, w) for n, w in student.named_parameters() if w.dim() > 1]  # no biases, no normalisation
        if self.start_penalty:
            start = dict(teachers[0].network.named_parameters())
            moved = [(w - start[n]).square().sum() for n, w in weights if not is_head(student, n)]
            parts["start"] = self.start_penalty / 2 * total(moved)
        if self.head_penalty:
            heads = [w.square().sum() for n, w in weights if is_head(student, n)]
            parts["head"] = self.head_penalty / 2 * total(heads)
        return output, parts

    def parameter_groups(self, student: nn.Module) -> list[Group]:
        """The heads at the recipe's rate, the body at its multiple; no weight decay where L2-SP takes its place."""
        assert isinstance(student, Network)
        decay = {"weight_decay": 0.0} if self.start_penalty or self.head_penalty else {}
        return [{**group, **decay} for group in groups(student, body_rate=self.body_rate)]


def total(parts: list[Tensor]) -> Tensor:
    """Return the sum of scalars, [] in shape."""
    return torch.stack(parts).sum()
